# SPDX-License-Identifier: Apache-2.0
"""Pipelined arithmetic on the small float of `golden.number.Format`.

All units are feed-forward: inputs are sampled in each cycle, the result comes
`latency` cycles later, and nothing can stall.
"""
