# SPDX-License-Identifier: Apache-2.0
"""Errors that a user can mend; the command line prints them as one line and exits with 2."""


class AfternormError(Exception):
    """What went wrong, and what to do about it."""


class ConfigError(AfternormError):
    """A configuration that cannot be built."""


class ToolError(AfternormError):
    """A program that is missing or failed; the message says what to install."""


class CheckpointError(AfternormError):
    """A checkpoint that cannot be used."""


class CapacityError(AfternormError):
    """Work that does not fit the accelerator's memories; the message says how much is needed."""
