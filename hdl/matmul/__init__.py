# SPDX-License-Identifier: Apache-2.0
"""The matrix engine: a weight-stationary systolic array in front of float accumulators."""
