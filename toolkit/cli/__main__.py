"""`python -m toolkit.cli` is `trtk`."""

from toolkit.cli import main

main(prog_name="trtk")
