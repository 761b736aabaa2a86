"""How many packs an epoch runs, over the fewest that could hold its samples.

    python benchmarks/micro_steps.py [--samples 223128] [--scenes 562]

A mix of the published size, its samples spread unevenly over its scenes (half to one and a half
times the mean). Each line: K, ranks, packs a rank and step, micro-steps of the epoch over samples
/ (K x ranks).
"""

import argparse

import numpy as np

from threedrs.training.sampler import micro_steps, plan_batches

SHAPES = ((2, 8, 1), (4, 4, 1), (8, 2, 1), (8, 8, 1), (16, 1, 1), (16, 8, 1), (16, 2, 4))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=223_128)
    parser.add_argument("--scenes", type=int, default=562)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    shares = generator.uniform(0.5, 1.5, arguments.scenes)
    numbers = generator.choice(arguments.scenes, arguments.samples, p=shares / shares.sum())
    scenes = [f"scene{number:04d}_00" for number in numbers]
    print("| K | ranks | packs a rank and step | micro-steps over the fewest |")
    print("|---|---|---|---|")
    for pack, ranks, accumulation in SHAPES:
        batches = plan_batches(
            scenes,
            pack=pack,
            global_batch=pack * ranks * accumulation,
            drop_last=False,
            seed=42,
            epoch=0,
        )
        steps = sum(len(micro_steps(batch, 0, ranks)) for batch in batches)
        ratio = steps * pack * ranks / len(scenes)
        print(f"| {pack} | {ranks} | {accumulation} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
