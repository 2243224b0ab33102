"""Each learner in an environment of its own, since their pins collide: `make test-matrix`, or `nox -s rllib`.

`nox -l` lists the sessions. Torch is installed first and never changed by what follows; on a machine without a GPU,
name the CPU build's index or folder: `PIP_FIND_LINKS=~/wheels nox`. Every session prints the versions that it ran.
LeRobot's session also wants FFmpeg's shared libraries (Debian: package ffmpeg), and takes 6.4 GB; see VISION.
"""

import nox

TORCH = "torch==2.13.0"
# PyPI's torchvision is built for the torch with CUDA libraries and does not import beside a CPU build of torch on
# x86_64. What needs torchvision takes this pair, 5.6 GB, and the decoder of video that goes with it.
VISION = ("torch==2.14.1", "torchvision==0.29.1", "torchcodec==0.17.0")
TESTS = "tests/sanawm_env/learners"
ENVIRONMENTS = [
    "tests/conformance",
    *(f"tests/sanawm_env/test_{name}.py" for name in ("env", "modes", "play", "task_envs", "twin", "vector", "window")),
]
nox.options.error_on_missing_interpreters = True
nox.options.reuse_existing_virtualenvs = True


def prepare(session: nox.Session, *packages: str, torch: tuple[str, ...] = (TORCH,)) -> None:
    """Install torch, then this package with what the tests need and `packages`, whose pins win."""
    session.install(*torch)
    session.install("-e", ".", "pytest", "pybullet", "opencv-python-headless", "hypothesis", *packages, *torch)


def check(session: nox.Session, names: tuple[str, ...], *paths: str) -> None:
    """Say the versions, then run tests."""
    program = (
        f"from importlib.metadata import version; print({{n: version(n) for n in {('torch', 'numpy', *names)!r}}})"
    )
    session.run("python", "-c", program)
    session.run("python", "-m", "pytest", "-q", *paths, *session.posargs)


@nox.session
def torchrl(session: nox.Session) -> None:
    prepare(session, "torchrl==0.14.1", "tensordict==0.14.3", "gymnasium==1.4.0")
    check(session, ("gymnasium", "torchrl"), f"{TESTS}/test_matrix.py")


@nox.session
def rllib(session: nox.Session) -> None:
    prepare(session, "ray[rllib]==2.60.0", "gymnasium==1.2.2")
    check(session, ("gymnasium", "ray"), f"{TESTS}/test_matrix.py")


@nox.session
def lerobot(session: nox.Session) -> None:
    """LeRobot without its pins: it wants torch < 2.11. What its dataset needs is installed beside it."""
    prepare(session, "gymnasium==1.4.0", "pyarrow", torch=VISION)
    session.install("lerobot==0.4.4", "--no-deps")
    needs = ("datasets<5", "huggingface-hub<0.36", "accelerate", "diffusers<0.36", "draccus==0.10.0", "einops")
    session.install(*needs, "jsonlines", "deepdiff<9", "imageio", "pyserial", "termcolor", *VISION)
    names = ("gymnasium", "lerobot", "torchvision", "torchcodec")
    check(session, names, f"{TESTS}/test_matrix.py", f"{TESTS}/test_lerobot_env.py")


@nox.session
@nox.parametrize("gymnasium", ["==1.2.2", "<2"])
def ends(session: nox.Session, gymnasium: str) -> None:
    """Our environments on the oldest Gymnasium that we support, and on the newest."""
    learners = "stable-baselines3==2.9.2", "minari==0.5.4", "pillow", "pyarrow"
    prepare(session, f"gymnasium{gymnasium}", *learners, "pygame==2.6.1")
    check(session, ("gymnasium", "stable-baselines3", "minari", "pygame"), *ENVIRONMENTS, TESTS)
