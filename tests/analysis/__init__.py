"""Tests of the analysis of signals: every figure beside a reference, on real prices."""
