"""The shipped policies, graded in skill: thirteen act on pixels, two have privileged pose and are shown as bounds.

They were graded in the true renderer, in rooms outside the bank of start scenes.
"""

from sanawm_env.evaluate.clone import Clone
from sanawm_env.evaluate.handicaps import Blur, Late, Random, Shift, Through, Trembling
from sanawm_env.evaluate.policies import Policy
from sanawm_env.evaluate.privileged import Expert
from sanawm_env.evaluate.servo import Servo
from sanawm_env.evaluate.steering import Steering


def shipped() -> dict[str, Policy]:
    """The shipped policies by name."""
    servo, clone = Servo(), Clone(stage="late")
    return {
        "random": Random(),
        "servo": servo,
        "servo-strafe": Servo(steering=Steering(way="strafe")),
        "servo-shy": Servo(stops_at=0.25),  # takes a goal that fills a quarter of the picture for reached
        "servo-timid": Servo(stops_at=0.1),
        "servo-late": Late(policy=servo, steps=5),
        "servo-trembling": Trembling(policy=servo, level=0.7),
        "servo-blurred": Through(policy=servo, filter=Blur(radius=8)),
        "clone-early": Clone(stage="early"),
        "clone-middle": Clone(stage="middle"),
        "clone": clone,
        "clone-blurred": Through(policy=clone, filter=Blur(radius=6)),
        "clone-shifted": Through(policy=clone, filter=Shift(strength=0.4, tint=(30, 10, -30))),
        "expert": Expert(),
        "expert-trembling": Trembling(policy=Expert(), level=0.7),
    }
