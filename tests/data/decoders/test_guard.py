import os
import threading
import time
import weakref

import pytest

from cast_ray.data.decoders.guard import Unreadable, UnreadableVideo, guarded


class UnreadableSmell(Unreadable):
    pass


def test_the_result_is_handed_on():
    assert guarded(lambda: 7, 5) == 7


def test_calls_one_after_the_other_share_a_thread():
    assert len({guarded(threading.get_ident, 5) for _ in range(20)}) == 1


def test_calls_at_the_same_time_and_calls_within_calls_do_not_wait_for_each_other():
    meeting = threading.Barrier(3, timeout=10)
    callers = [threading.Thread(target=guarded, args=(meeting.wait, 10)) for _ in range(2)]
    for caller in callers:
        caller.start()
    guarded(lambda: guarded(meeting.wait, 10), 10)
    for caller in callers:
        caller.join(10)
    assert not meeting.broken


def test_a_fault_becomes_the_verdict_with_one_short_line():
    def fail():
        raise ValueError("first line\nsecond line")

    with pytest.raises(UnreadableSmell) as error:
        guarded(fail, 5, UnreadableSmell)
    assert error.value.reason == "first line"
    assert isinstance(error.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[12:34:56] /src/video_reader.cc:12: no such stream", "no such stream"),
        ("decode_av_frame, /src/Decoder.cpp:1493, Could not push packet: broken", "Could not push packet: broken"),
        ("x" * 500, "x" * 160),
        ("", "RuntimeError"),
    ],
)
def test_places_in_libraries_are_left_out_of_the_reason(message, reason):
    def fail():
        raise RuntimeError(message)

    with pytest.raises(UnreadableVideo) as error:
        guarded(fail, 5)
    assert error.value.reason == reason


def test_a_stuck_call_is_given_up_and_the_next_one_gets_another_thread():
    release = threading.Event()
    stuck = []

    def hang():
        stuck.append(threading.current_thread())
        release.wait()

    start = time.monotonic()
    with pytest.raises(UnreadableVideo, match=r"did not finish within 0.2 s"):
        guarded(hang, 0.2)
    assert time.monotonic() - start < 5
    assert guarded(threading.get_ident, 5) != stuck[0].ident
    release.set()
    stuck[0].join(10)
    assert not stuck[0].is_alive()  # a thread that was given up ends as soon as it can


def test_a_waiting_thread_keeps_nothing_of_its_last_work():
    class Clip:
        pass

    clip = Clip()
    gone = weakref.ref(clip)
    assert guarded(lambda clip=clip: isinstance(clip, Clip), 5)
    del clip
    deadline = time.monotonic() + 10
    while gone() is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone() is None


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have():
    guarded(lambda: None, 5)
    child = os.fork()
    if child == 0:
        try:
            os._exit(guarded(lambda: 42, 5))
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
