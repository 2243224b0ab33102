"""Training: data, objectives and loops. `python -m world_model.train --help` lists the programs."""
