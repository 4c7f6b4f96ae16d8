"""Run the command line as `python -m instancediffusion`."""

from instancediffusion.cli import main

if __name__ == "__main__":
    main()
