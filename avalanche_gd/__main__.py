"""``python -m avalanche_gd`` is the command ``avalanche-gd``."""

from avalanche_gd.runs.run_command import main

if __name__ == "__main__":
    main()
