# SPDX-License-Identifier: Apache-2.0
"""Scheduler: fetch, legality, queues, semaphores."""
