"""The instance mask must not cost what the published one did: 2 GB per image for building it alone."""

import subprocess
import sys

SCRIPT = """
import resource, torch
from instancediffusion.conditioning.attention_mask import attention_bias
from tests.tiny import random_locations
places = random_locations(4, 30)
torch.ones(64, 64) @ torch.ones(64, 64)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
bias = attention_bias(
    "full", places, (64, 64), log_weight=torch.zeros(4, 188), slot=torch.arange(188).clamp(max=30).sub(1).expand(4, -1),
    kind=torch.zeros(4, 188, dtype=torch.long), dtype=torch.float32,
).joined(4096)
print(peak() - before, bias.shape)
"""


def test_batch_of_four_with_thirty_instances_at_64x64():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[0]) < 600  # MB
