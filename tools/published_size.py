"""What the large published models cost, with random weights of their shapes: `python tools/published_size.py`.

Loading a folder of the 650M shape (one file, shards, bf16), and a training step and an embedding of one window at the
111M shape. Each in a process of its own: CPU seconds, and the peak memory of that process. Files of 2.6 GB are written
to a temporary folder (TMPDIR) and removed."""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from fastcore.basics import AttrDict
from safetensors.torch import save_file

import brainlm.protocol  # noqa: F401, low-rank updates
from brainlm.published import PublishedViTMAE, load_published

decoder = dict(decoder_hidden_size=512, decoder_num_hidden_layers=8, decoder_num_attention_heads=16,
               decoder_intermediate_size=2048, mask_ratio=.75)
shapes = {
    '111M': dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, patch_size=16,
                 image_size=[432,432], **decoder),
    '650M': dict(hidden_size=1280, num_hidden_layers=32, num_attention_heads=16, intermediate_size=5120, patch_size=14,
                 image_size=[434,434], **decoder)}
steps = 'embedding', 'step, low-rank updates', 'step, all weights'

def write(folder, shape, n_files=1, dtype=torch.float32):
    "A folder with random weights of a shape, in shards, never more than one shard in memory"
    folder.mkdir(parents=True)
    (folder/'config.json').write_text(json.dumps(shapes[shape]))
    want = PublishedViTMAE(AttrDict(shapes[shape]), made=False).state_dict()
    keys, where = list(want), {}
    for i in range(n_files):
        part = keys[i::n_files]
        name = 'model.safetensors' if n_files==1 else f'model-{i+1:05}-of-{n_files:05}.safetensors'
        save_file({k: torch.empty(want[k].shape, dtype=dtype).uniform_(-.02, .02) for k in part}, folder/name)
        where |= dict.fromkeys(part, name)
    if n_files>1: (folder/'model.safetensors.index.json').write_text(json.dumps(dict(metadata={}, weight_map=where)))
    return folder

def task(folder, what):
    "One thing that is measured"
    model = load_published(folder, 'fit')
    x = torch.randn(1, 424, 200)
    if what=='embedding':
        with torch.no_grad(): model.encode(x)
    elif what!='load':
        if 'low-rank' in what:
            model.add_lora(8)
            for k,p in model.named_parameters(): p.requires_grad_('lora_' in k)
        opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-4)
        model.train().encode_cls(x).square().sum().backward()
        opt.step()

def measured(folder, what):
    "CPU seconds and peak memory in GB of a process that does nothing else, and seconds by the clock"
    said = subprocess.run([sys.executable, __file__, '--one', str(folder), what], check=True, capture_output=True, text=True)
    return json.loads(said.stdout.splitlines()[-1])

def peak_bytes():
    "Peak memory of this process; that of getrusage begins at what the process had that started it"
    said = Path('/proc/self/status')
    if not said.is_file(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*1024
    return next(int(o.split()[1])*1024 for o in said.read_text().splitlines() if o.startswith('VmHWM'))

def one(folder, what):
    "In the process that is measured"
    t = time.perf_counter()
    task(folder, what)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = dict(cpu_s=round(used.ru_utime+used.ru_stime, 1), clock_s=round(time.perf_counter()-t, 1))
    print(json.dumps(dict(what=what, **seconds, peak_gb=round(peak_bytes()/1e9, 2))))

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--one', nargs=2, metavar=('FOLDER','WHAT'), help=argparse.SUPPRESS)
    p.add_argument('--skip-650m', action='store_true', help='steps at the 111M shape only')
    a = p.parse_args(argv)
    if a.one: return one(*a.one)
    ways = {'one file': {}, 'eight shards': dict(n_files=8), 'bf16': dict(dtype=torch.bfloat16)}
    for name,how in ({} if a.skip_650m else ways).items():
        with tempfile.TemporaryDirectory() as tmp:
            print('650M', name, measured(write(Path(tmp)/'m', '650M', **how), 'load'), flush=True)
    with tempfile.TemporaryDirectory() as tmp:
        folder = write(Path(tmp)/'m', '111M')
        for what in steps: print('111M', measured(folder, what), flush=True)

if __name__=='__main__': main()
