"""Named cases: the answer checked, then timed, beside PyTorch where it is installed. Run with `python -m bench`."""
