# SPDX-License-Identifier: Apache-2.0
"""A model of the machine's time: cycles of programs without their values.

`predict` runs a program's instructions, not its cycles: each is dispatched, waits for its
semaphores, and takes the time that its fields and the documented timing of its engine give.
"""

from afternorm.cycles.predict import EngineTime, Prediction, predict

__all__ = ["EngineTime", "Prediction", "predict"]
