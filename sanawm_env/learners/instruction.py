"""What is to be done, in words: for policies that are told."""

import re

GOAL = re.compile(r"\ban? (\w+ (?:ball|barrel|cone|cube))\b")  # what rooms have as goals, and nothing else


def instruction(task: str, prompt: str) -> str:
    """A sentence about a task, by its name, in a world that `prompt` describes: "reach the purple ball"."""
    found = GOAL.search(prompt)
    return f"{task} the {found[1]}" if task == "reach" and found else task
