"""Tests of the options of every command."""
