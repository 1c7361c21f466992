"""What can be trained: one file a task, one line here."""

from collections.abc import Callable

from vlbeit_jax.config import Config
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.vqkd import VQKD

TASKS: dict[str, Callable[[Config], Task]] = {"pretrain": Pretrain, "vqkd": VQKD}
