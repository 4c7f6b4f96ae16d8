"""Errors: readable in the terminal, complete for a program, and able to cross a process boundary."""

import pickle

from instancediffusion.errors import InstanceDiffusionError, Problem, SceneError


def test_a_scene_error_has_one_line_for_each_problem() -> None:
    problems = (
        Problem("$.instances[2].box", "x1 (10) is not right of x0 (20)", "write [x0, y0, x1, y1]"),
        Problem("$.prompt", "is empty"),
    )
    error = SceneError(problems, source="scene.json")
    assert isinstance(error, InstanceDiffusionError)
    assert error.problems == problems
    assert str(error).splitlines() == [
        "scene.json: $.instances[2].box: x1 (10) is not right of x0 (20); write [x0, y0, x1, y1]",
        "scene.json: $.prompt: is empty",
    ]
    assert str(SceneError(problems[1:])) == "$.prompt: is empty"


def test_a_scene_error_survives_a_worker_process() -> None:
    error = SceneError([Problem("$", "is empty")], "a.json")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.problems == error.problems
    assert str(copy) == str(error)
