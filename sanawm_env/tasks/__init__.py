"""Tasks: what an agent is paid for, and when an episode ends. One file a task.

Tasks judge by poses, which are privileged: an agent that reads pixels gets to know them through the reward only, unless
its observation shows them. Poses are camera-to-world (4, 4) relative to the start frame, metres, OpenCV axes; a goal is
a position (3,) in the start camera's axes.
"""

from sanawm_env.episode import Episode
from sanawm_env.tasks.explore import Explore
from sanawm_env.tasks.free import NoTask, Transition
from sanawm_env.tasks.image_goal import ImageGoal
from sanawm_env.tasks.names import TASKS, make_task
from sanawm_env.tasks.reach import Reach
from sanawm_env.tasks.task import Aimed, Shown, Task, notes_of
from sanawm_env.tasks.track_path import TrackPath
from sanawm_env.verdict import Verdict

__all__ = [
    "TASKS",
    "Aimed",
    "Episode",
    "Explore",
    "ImageGoal",
    "NoTask",
    "Reach",
    "Shown",
    "Task",
    "TrackPath",
    "Transition",
    "Verdict",
    "make_task",
    "notes_of",
]
