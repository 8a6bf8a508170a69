"""What a user sees of an error, and what stays a stack trace."""

from __future__ import annotations

import pytest

from cast_ray.errors import Stopped, UserError, run_as_command


def fail(error: BaseException):
    raise error


def test_a_user_error_becomes_one_message_on_stderr_and_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_as_command(lambda: fail(UserError("the folder 'x' does not exist; give another")))
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err == "error: the folder 'x' does not exist; give another\n"


@pytest.mark.parametrize("text", ["missing: [1, 2] and [/red], [bold]", "long " * 100 + "line", r"C:\x [a\]"])
def test_the_message_is_printed_as_it_is(capsys, text):
    with pytest.raises(SystemExit):
        run_as_command(lambda: fail(UserError(text)))
    assert capsys.readouterr().err == f"error: {text}\n"


@pytest.mark.parametrize(("returned", "status"), [(None, 0), (0, 0), (1, 1)])
def test_what_the_command_returns_is_the_exit_status(capsys, returned, status):
    with pytest.raises(SystemExit) as stopped:
        run_as_command(lambda: returned)
    assert stopped.value.code == status
    assert capsys.readouterr().err == ""


def test_a_defect_of_the_program_keeps_its_stack_trace():
    with pytest.raises(KeyError, match="ours"):
        run_as_command(lambda: fail(KeyError("ours")))


def test_an_interruption_is_no_stack_trace(capsys):
    with pytest.raises(SystemExit) as stopped:
        run_as_command(lambda: fail(KeyboardInterrupt()))
    assert stopped.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_program_that_was_stopped_says_so_and_ends_with_the_status_of_its_signal(capsys):
    def stop() -> None:
        raise Stopped("after step 7; start the same command again", "SIGTERM")

    with pytest.raises(SystemExit) as ended:
        run_as_command(stop)
    assert ended.value.code == 143
    assert "stopped: after step 7; start the same command again" in capsys.readouterr().err
