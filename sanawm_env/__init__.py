"""SANA-WM as a Gymnasium environment.

Importing this package registers its environments and imports neither torch nor pybullet, so that
`import sanawm_env` costs no more than Gymnasium itself. Names that need torch are loaded when asked for.
"""

from sanawm_env.registration import register_environments

register_environments()
