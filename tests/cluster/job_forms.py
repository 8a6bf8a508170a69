"""Does a job behave in the forms in which a user submits it? With a token, an upload, in the background, and stopped.

`make job-forms` shows it on a head of its own with two cores, as long as one training run takes.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path

import psutil
from one_head import Clock, Head, fetch, free_ports, run, start_head

from cast_ray.config import RunConfig
from cast_ray.data.synthetic import write_dataset
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_state

METRICS = Path(__file__).with_name("exported_metrics.txt")
"""Names of metrics that were seen: what the Grafana dashboard may ask for."""
UPLOAD_LIMIT = 4 * 2**20
STEP_TIMEOUT_S, STOP_WAIT_S = 600, 120


def ray_job(head: Head, *words: str, timeout_s: float = STEP_TIMEOUT_S) -> tuple[int, str]:
    verb, *rest = words
    status, output = run(["ray", "job", verb, "--address", head.dashboard, *rest], head, timeout_s=timeout_s)
    return status, re.sub(r"\x1b\[\d+m", "", output)


def wait_for(head: Head, job: str, text: str) -> str:
    """The job's log, once it has the text."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while True:
        _, log = ray_job(head, "logs", job)
        if re.search(text, log):
            return log
        assert time.monotonic() < deadline, f"'{text}' did not come:\n{log}"
        assert "RUNNING" in (status := ray_job(head, "status", job)[1]) or "PENDING" in status, f"{status}\n{log}"
        time.sleep(1)


def exported(head: Head) -> set[str]:
    """Names of the metrics that Prometheus would find now."""
    names = set()
    for service in json.loads(fetch(head, f"{head.dashboard}/api/prometheus/sd")):
        for target in service["targets"]:
            with contextlib.suppress(OSError):  # a port that Ray announces and nobody listens at
                names |= set(re.findall(r"^# TYPE (\S+)", fetch(head, f"http://{target}/metrics"), re.MULTILINE))
    return names


def uploaded(head: Head) -> int:
    """Bytes of the working folder as Ray has unpacked it for the job."""
    (folder,) = (head.folder / "session_latest/runtime_resources/working_dir_files").glob("_ray_pkg_*/")
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def of_the_run(run_folder: Path) -> list[str]:
    """Processes that work for a run: its driver, and Ray's workers of training and decoding."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(run_folder.parent) in words and "jobs/train_ssv2.py" in words:
            found.append(words)
    return found


def drill(head: Head, clock: Clock) -> None:
    clips = write_dataset(head.folder / "clips", layout="ssv2", train_clips=512, validation_clips=16)
    storage = head.folder / "runs"
    training = ["python", "jobs/train_ssv2.py", "--small", "--data", str(clips.videos)]
    training += ["--annotations", str(clips.annotations), "--storage", str(storage), "--name", "forms"]
    training += ["--log-every", "2", "--optim.epochs"]

    clock.say("without the token")
    without = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
    stranger = Head(**{**vars(head), "environment": without | {"HOME": str(head.folder)}})
    status, output = ray_job(stranger, "submit", "--no-wait", "--", "true")
    clock.say("    | " + next(line for line in output.splitlines() if "Unauthorized" in line).strip())
    assert status != 0

    clock.say("which source a job with --working-dir . runs")
    where = "import cast_ray; print(cast_ray.__path__[0])"
    status, output = ray_job(head, "submit", "--working-dir", ".", "--", "python", "-c", where)
    clock.say("    | " + next((line for line in output.splitlines() if line.endswith("/cast_ray")), "(none)"))
    assert status == 0, output
    assert "/working_dir_files/_ray_pkg_" in output, output

    clock.say("with the token, this folder uploaded, in the background")
    status, output = ray_job(head, "submit", "--working-dir", ".", "--no-wait", "--", *training, "20")
    assert status == 0, output
    (job,) = set(re.findall(r"raysubmit_\w+", output))
    wait_for(head, job, r"step +4 ")
    time.sleep(15)  # metrics are collected every 10 s
    names = exported(head)
    METRICS.write_text("".join(f"{name}\n" for name in sorted(names | set(METRICS.read_text().split()))))
    clock.say(f"    {len(names)} metrics, of which {sum('cast_ray' in name for name in names)} are ours")
    clock.say(f"    it trains; {uploaded(head) / 1e6:.1f} MB were uploaded")
    assert uploaded(head) < UPLOAD_LIMIT
    assert of_the_run(storage / "forms")

    clock.say("ray job stop")
    begun = time.monotonic()
    status, output = ray_job(head, "stop", job, timeout_s=STOP_WAIT_S + 60)
    assert status == 0, output
    clock.say(f"    stopped after {time.monotonic() - begun:.0f} s")
    log = ray_job(head, "logs", job)[1]
    clock.say("    | " + next((line for line in log.splitlines() if "was stopped by" in line), "(nothing said)"))
    assert "was stopped by SIGTERM" in " ".join(log.split()), log
    assert "STOPPED" in ray_job(head, "status", job)[1]
    time.sleep(5)
    left = of_the_run(storage / "forms")
    workers = [child.name() for child in head.process.children(recursive=True) if "RayTrainWorker" in child.name()]
    assert not left, left
    assert not workers, workers
    clock.say("    nothing of it runs any more")

    checkpoint = max((storage / "forms").glob("checkpoint_*/state.json")).parent
    state = read_state(checkpoint)
    config = RunConfig.from_dict(state.config)
    network, frozen = build_network(config.model, config.weights, state.label_map, seed=config.seed)
    load_weights(checkpoint, network, frozen=frozen)
    clock.say(f"    its checkpoint opens: epoch {state.position.epoch + 1}, {state.position.step} steps into it")

    clock.say("the same command again, followed to its end")
    status, output = ray_job(head, "submit", "--working-dir", ".", "--", *training, "20")
    said = next((line for line in output.splitlines() if "continues after" in line), "")
    clock.say("    | " + said)
    assert status == 0, output
    assert said, output


def main() -> None:
    (port,) = free_ports(1)
    flags = ["--num-cpus=2", "--num-gpus=0", f"--object-store-memory={150 * 2**20}"]
    clock = Clock()
    # As in cluster/*.yaml.
    with start_head(flags, {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}, port) as head:
        clock.say("a head with two cores")
        drill(head, clock)


if __name__ == "__main__":
    main()
