"""Which files are opened, and that what they name is not."""

from __future__ import annotations

import io
import socket
import threading
import time
from pathlib import Path

import av
import pytest

from cast_ray.data import decode
from cast_ray.data.decode import UnreadableVideo, open_video
from cast_ray.data.decoders.container import open_container
from cast_ray.data.ingest import stored_clips
from cast_ray.data.manifest import TRAIN, Clip
from cast_ray.data.media import MediaFormat
from cast_ray.data.sound import UnreadableSound, read_sound

CLIPS = Path(__file__).parents[2] / "clips"
REAL = CLIPS / "nasa_with_audio.mp4"
REFUSED = "not a video container that is accepted|Invalid data"


def texts(server: str, port: int = 45678) -> dict[str, str]:
    """Files that make FFmpeg open others, by kind."""
    session = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    segments = "<SegmentList duration='10'><SegmentURL media='dash.mp4'/></SegmentList>"
    dash = (
        "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static' "
        "mediaPresentationDuration='PT10S' profiles='urn:mpeg:dash:profile:isoff-on-demand:2011'><Period>"
        f"<AdaptationSet mimeType='video/mp4'><Representation id='1' bandwidth='1000'><BaseURL>{server}/</BaseURL>"
        f"{segments}</Representation></AdaptationSet></Period></MPD>"
    )
    return {
        "concat of a local file": f"ffconcat version 1.0\nfile {REAL}\n",
        "concat of a neighbour": "ffconcat version 1.0\nfile other.mp4\n",
        "concat of a URL": f"ffconcat version 1.0\nfile {server}/concat.mp4\n",
        "HLS of a URL": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{server}/hls.ts\n#EXT-X-ENDLIST\n",
        "HLS of a local file": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{REAL}\n#EXT-X-ENDLIST\n",
        "DASH": dash,
        "SDP": f"{session}m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    }


@pytest.fixture
def server():
    """A local address, and the connections that were made to it."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        done = threading.Event()

        def accept():
            while not done.is_set():
                try:
                    connection, _ = listening.accept()
                except TimeoutError:
                    continue
                connections.append(connection)
                connection.close()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", connections
        done.set()
        thread.join(10)


@pytest.mark.parametrize("kind", texts(""))
def test_a_text_that_names_other_files_is_no_video_for_anything_here(kind, server, tmp_path, monkeypatch):
    address, connections = server
    path = tmp_path / "evil.mp4"
    path.write_text(texts(address)[kind])
    (tmp_path / "other.mp4").write_bytes(REAL.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode, "check_decoder", lambda _: None)  # torchcodec may lack FFmpeg's libraries
    for name in ("open_decord", "open_torchcodec", "open_pyav"):
        monkeypatch.setattr(decode, name, lambda *_: pytest.fail("a decoder saw the file"))
    for decoder in ("decord", "torchcodec", "pyav"):
        with pytest.raises(UnreadableVideo, match=REFUSED):
            open_video(path.read_bytes(), decoder=decoder, time_limit_s=20)
    with pytest.raises(UnreadableSound, match=REFUSED):
        read_sound(path.read_bytes(), time_limit_s=20)
    whole = Clip(clip_id="whole", uri=str(path), labels=(0,), split=TRAIN)
    part = Clip(clip_id="part", uri=str(path), labels=(0,), split=TRAIN, start_s=0.0, stop_s=1.0)
    for stored in stored_clips([whole, part], MediaFormat(sound="16khz", time_limit_s=20)):
        assert stored.quarantined
        assert stored.reason.startswith(("not a video container that is accepted", "Invalid data"))
    assert not connections


def test_a_session_description_binds_no_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = texts("", port)["SDP"].encode()

    def open_it():
        with pytest.raises(UnreadableVideo, match="not a video container"):
            open_container(io.BytesIO(data))

    opening = threading.Thread(target=open_it)
    opening.start()
    deadline = time.monotonic() + 1.5
    while opening.is_alive() and time.monotonic() < deadline:
        assert f":{port:04X} " not in Path("/proc/net/udp").read_text()
        time.sleep(0.01)
    opening.join(20)
    assert not opening.is_alive()


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("3gp", "mpeg4"),
        ("matroska", "libx264"),
        ("webm", "libvpx"),
        ("avi", "mpeg4"),
        ("mpegts", "libx264"),
        ("mpeg", "mpeg2video"),
        ("mpeg2video", "mpeg2video"),
        ("asf", "wmv2"),
        ("flv", "flv"),
        ("gif", "gif"),
        ("ogv", "libtheora"),
    ],
)
def test_what_datasets_consist_of_is_accepted(container, codec):
    if codec not in av.codecs_available:
        container, codec = "ogg", "libvpx"
    target = io.BytesIO()
    with av.open(target, "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8" if codec == "gif" else "yuv420p"
        for index in range(6):
            frame = av.VideoFrame(64, 48, "yuv420p").reformat(format=stream.pix_fmt)
            frame.pts = index
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with open_container(io.BytesIO(target.getvalue())) as file:
        assert file.streams.best("video") is not None


def test_other_formats_that_ffmpeg_knows_are_refused_with_the_accepted_ones():
    target = io.BytesIO()
    with av.open(target, "w", format="nut") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        file.mux([*stream.encode(av.VideoFrame(64, 48, "yuv420p")), *stream.encode(None)])
    with pytest.raises(UnreadableVideo, match=r"not a video container that is accepted: mp4, mov, mkv, webm, avi"):
        open_video(target.getvalue())


def test_nothing_else_opens_files_with_ffmpeg():
    package = Path(decode.__file__).parents[1]
    reading = [
        f"{path.name}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "av.open(" in line and '"w"' not in line and path.name != "container.py"
    ]
    assert reading == []
