"""Does a job behave in the forms in which a user submits it? With a token, an upload, in the background, and stopped.

`make job-forms` shows it on a head of its own with two cores, as long as one training run takes.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from pathlib import Path

import psutil
from one_head import Clock, Head, run, start_head
from ports import free_ports
from prometheus import Prometheus, expressions, prometheus

from cast_ray.config import RunConfig
from cast_ray.data.synthetic import write_dataset
from cast_ray.training.build import build_network
from cast_ray.training.checkpoint import load_weights, read_state

METRICS = Path(__file__).with_name("exported_metrics.txt")
"""Names of metrics that were seen: what the Grafana dashboard may ask for."""
PACKAGE = "humanize==4.12.3"
COPIED, TRAINED, INSTALLED = r"/runtime_resources/uv/.*/humanize/", "report: ", r"Installed \d+ packages"
"""What tells that a job had packages of its own, or has trained."""
UPLOAD_LIMIT = 4 * 2**20
STEP_TIMEOUT_S, STOP_WAIT_S = 600, 120
SCRAPES_S = 25
"""Ray collects every 10 s, and so does its Prometheus; of rates it needs two values."""
EMPTY = {"GPU utilisation", "GPU memory", "Times that workers were lost"}
"""Panels for which a run without GPUs and without failures has nothing."""


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


def check_dashboard(asked: Prometheus, clock: Clock, run: str) -> None:
    """While the run trains."""
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while not asked.query('ray_cast_ray_step{run="$run"}', run=run):
        assert time.monotonic() < deadline, asked.names()
        time.sleep(1)
    time.sleep(SCRAPES_S)
    names = asked.names()
    empty = {title for expression, title in expressions().items() if not asked.query(expression, run=run)}
    METRICS.write_text("".join(f"{name}\n" for name in sorted(names | set(METRICS.read_text().split()))))
    clock.say(f"    {len(names)} metrics in Prometheus, of which {sum('cast_ray' in name for name in names)} are ours")
    clock.say(f"    panels of the Grafana dashboard without data: {', '.join(sorted(empty)) or 'none'}")
    assert empty <= EMPTY, empty - EMPTY


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


def submit_without_token(head: Head, clock: Clock) -> None:
    clock.say("without the token")
    without = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
    stranger = Head(**{**vars(head), "environment": without | {"HOME": str(head.folder)}})
    status, output = ray_job(stranger, "submit", "--no-wait", "--", "true")
    clock.say("    | " + next(line for line in output.splitlines() if "Unauthorized" in line).strip())
    assert status != 0


def submit_upload(head: Head, clock: Clock) -> None:
    clock.say("which source a job with --working-dir . runs")
    where = "import cast_ray; print(cast_ray.__path__[0])"
    status, output = ray_job(head, "submit", "--working-dir", ".", "--", "python", "-c", where)
    clock.say("    | " + next((line for line in output.splitlines() if line.endswith("/cast_ray")), "(none)"))
    assert status == 0, output
    assert "/working_dir_files/_ray_pkg_" in output, output


def submit_and_stop(head: Head, clock: Clock, asked: Prometheus, training: list[str], run_folder: Path) -> None:
    clock.say("with the token, this folder uploaded, in the background")
    status, output = ray_job(head, "submit", "--working-dir", ".", "--no-wait", "--", *training)
    assert status == 0, output
    (job,) = set(re.findall(r"raysubmit_\w+", output))
    wait_for(head, job, r"step +4 ")
    check_dashboard(asked, clock, run_folder.name)
    clock.say(f"    it trains; {uploaded(head) / 1e6:.1f} MB were uploaded")
    assert uploaded(head) < UPLOAD_LIMIT
    assert of_the_run(run_folder)

    clock.say("ray job stop")
    begun = time.monotonic()
    status, output = ray_job(head, "stop", job, timeout_s=STOP_WAIT_S + 60)
    assert status == 0, output
    clock.say(f"    stopped after {time.monotonic() - begun:.0f} s")
    log = ray_job(head, "logs", job)[1]
    clock.say("    | " + next((line for line in log.splitlines() if "was stopped by" in line), "(nothing said)"))
    assert "was stopped by SIGTERM" in " ".join(log.split()), log
    assert "was stopped" in ray_job(head, "status", job)[1]
    time.sleep(5)
    left = of_the_run(run_folder)
    workers = [child.name() for child in head.process.children(recursive=True) if "RayTrainWorker" in child.name()]
    assert not left, left
    assert not workers, workers
    clock.say("    nothing of it runs any more")


def open_checkpoint(clock: Clock, run_folder: Path) -> None:
    checkpoint = max(run_folder.glob("checkpoint_*/state.json")).parent
    state = read_state(checkpoint)
    config = RunConfig.from_dict(state.config)
    network, frozen = build_network(config.model, config.weights, state.label_map, seed=config.seed)
    load_weights(checkpoint, network, frozen=frozen)
    clock.say(f"    its checkpoint opens: epoch {state.position.epoch + 1}, {state.position.step} steps into it")


def submit_again(head: Head, clock: Clock, training: list[str]) -> None:
    clock.say("the same command again, followed to its end")
    status, output = ray_job(head, "submit", "--working-dir", ".", "--", *training)
    said = next((line for line in output.splitlines() if "continues after" in line), "")
    clock.say("    | " + said)
    assert status == 0, output
    assert said, output


def submit_with_packages(head: Head, clock: Clock, training: list[str]) -> None:
    """Both take packages from the index."""
    package = json.dumps({"uv": {"packages": [PACKAGE]}})
    where = "import humanize, torch; print(humanize.__file__)"
    of_the_lock = ["uv", "run", "--frozen", "--no-default-groups", "--all-extras"]
    forms = [
        ("a package that the nodes do not have", ["--runtime-env-json", package, "--", "python", "-c", where], COPIED),
        ("and a training with it", ["--runtime-env-json", package, "--", *training, "--name", "package"], TRAINED),
        ("uv run: all packages of the uploaded uv.lock", ["--", *of_the_lock, *training, "--name", "uv"], INSTALLED),
    ]
    for what, words, expected in forms:
        clock.say(what)
        status, output = ray_job(head, "submit", "--working-dir", ".", *words)
        for line in output.splitlines():
            if re.search(f"{COPIED}|{TRAINED}|{INSTALLED}|first step after", line):
                clock.say(f"    | {line.strip()}")
        assert status == 0, output
        assert re.search(expected, output), output


def drill(head: Head, clock: Clock, asked: Prometheus) -> None:
    clips = write_dataset(head.folder / "clips", layout="ssv2", train_clips=512, validation_clips=16)
    storage = head.folder / "runs"
    training = ["python", "jobs/train_ssv2.py", "--small", "--data", str(clips.videos)]
    training += ["--annotations", str(clips.annotations), "--storage", str(storage), "--log-every", "2"]
    submit_without_token(head, clock)
    submit_upload(head, clock)
    stopped = [*training, "--optim.epochs", "20", "--name", "forms"]
    submit_and_stop(head, clock, asked, stopped, storage / "forms")
    open_checkpoint(clock, storage / "forms")
    submit_again(head, clock, stopped)
    submit_with_packages(head, clock, [*training, "--optim.epochs", "1"])


def main() -> None:
    if shutil.which("prometheus") is None:
        sys.exit("Prometheus is not installed; install it (apt-get install prometheus) and start again")
    (port,) = free_ports(1)
    flags = ["--num-cpus=2", "--num-gpus=0", f"--object-store-memory={150 * 2**20}"]
    clock = Clock()
    # As in cluster/*.yaml.
    with start_head(flags, {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)}, port) as head:
        clock.say("a head with two cores, and Prometheus with the configuration that Ray writes for it")
        (head.folder / "prometheus").mkdir()
        config = head.folder / "session_latest/metrics/prometheus/prometheus.yml"
        with prometheus(config, head.folder / "prometheus") as asked:
            drill(head, clock, asked)


if __name__ == "__main__":
    main()
