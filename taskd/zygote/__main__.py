"""Entry of a zygote, and of a worker that is spawned: ``python -P -m taskd.zygote``."""

from taskd.zygote.main import main

if __name__ == "__main__":
    main()
