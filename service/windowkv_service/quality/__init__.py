"""The yardstick: how right the service's answers are on compressed caches, beside the full cache and blind choices.

    windowkv eval --suite ruler --method windowkv --method snapkv --kept-ratio 0.12 --question hidden --samples 10

A suite gives documents with questions; an arm is a method at a kept ratio, with the question hidden while the document
is cached, or visible at its end. Every arm caches the same documents in a real worker, through the SDK, and is asked
the same questions; answers are greedy. The package stands beside the worker's own entry, above all rooms, so that an
installed wheel can measure: `command.main` is what `windowkv eval` runs, `Evaluation` what it is made of.
"""

from __future__ import annotations

from windowkv_service.quality.answers import Answers
from windowkv_service.quality.arm import Arm, Visibility, arms
from windowkv_service.quality.case import Asked, Case
from windowkv_service.quality.evaluation import Evaluation
from windowkv_service.quality.method import Method
from windowkv_service.quality.result import Result
from windowkv_service.quality.suites import Suite, Task, suites

__all__ = [
    "Answers",
    "Arm",
    "Asked",
    "Case",
    "Evaluation",
    "Method",
    "Result",
    "Suite",
    "Task",
    "Visibility",
    "arms",
    "suites",
]
