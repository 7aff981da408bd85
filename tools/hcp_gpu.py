"""Pretrain the 13M-shaped axial and joint models on 30 real HCP subjects on a CUDA card, in bf16, and report speed, memory and test R² as Markdown.

    python tools/hcp_gpu.py                      # 20 minutes at most, from the first step of training to the last score
    python tools/hcp_gpu.py --minutes 5 --json OUT

Without a CUDA card the same code runs for about a minute on the CPU, with a tiny model and a few steps, and says so: that checks the script, it measures nothing."""
import argparse
import json
import os
import platform
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from brainlm.atlas import load_parcellation
from brainlm.datasets import fetch_hcp_rest
from brainlm.metrics import GaussianImputer, evaluate, model_predictor, scaled_recordings, score, score_table
from brainlm.model import BrainLM, preset
from brainlm.pretraining import Training, pretrain_learner
from brainlm.prior import GaussianPrior
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.windows import TiledWindows

root, ratios = Path(__file__).resolve().parents[1], (0.2,0.5,0.75)

def table(rows):
    "Print dicts as a Markdown table"
    cols = list(dict.fromkeys(k for r in rows for k in r))
    print('\n| '+' | '.join(cols)+' |\n|'+'---|'*len(cols))
    for r in rows: print('| '+' | '.join(str(r.get(c, '')) for c in cols)+' |', flush=True)
    print()

def wait(device):
    if device.type=='cuda': torch.cuda.synchronize(device)

def seconds(f, n, device):
    "Median seconds of `n` calls of `f`, after one that is not counted"
    out = []
    for _ in range(n+1):
        wait(device); start = time.perf_counter(); f(); wait(device); out.append(time.perf_counter()-start)
    return float(np.median(out[1:]))

def ceiling(device, sizes):
    "The highest bf16 matrix-product rate of this device, TFLOP/s, and the square size that gave it"
    def rate(n):
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in 'ab')
        out = torch.empty_like(a)
        return 2*n**3/seconds(lambda: torch.mm(a, b, out=out), 10, device)/1e12
    return max((rate(n), n) for n in sizes)

def flops(config, parcellation, ratio, device):
    "Floating-point operations of a forward and backward pass of one window: matrix products, attention counted in full, nothing counted twice"
    model, x = BrainLM(config, parcellation).to(device), torch.zeros(1, config.n_parcels, config.n_time, device=device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as count: model(x, mask_ratio=ratio).loss.backward()
    return count.get_total_flops()

def bare_step(model, batch, ratio, device, n):
    "Windows/s of forward, backward and a fused AdamW step on one batch that stays on the device: what the model could do if nothing else took time"
    x = torch.randn(batch, model.config.n_parcels, model.config.n_time, device=device)
    opt = torch.optim.AdamW(model.parameters(), lr=0., weight_decay=0., fused=device.type=='cuda')
    def step():
        with torch.autocast(device.type, torch.bfloat16): loss = model(x, mask_ratio=ratio).loss
        loss.backward(); opt.step(); opt.zero_grad()
    return batch/seconds(step, n, device)

def simulated(n, parcels, seed=0):
    "Recordings of eight shared sources and noise"
    rng = np.random.default_rng(seed); mix = rng.standard_normal((8, parcels))
    for i in range(n): yield Recording((rng.standard_normal((440, 8))@mix + rng.standard_normal((440, parcels))).astype('float32'), 0.72, f's{i:02}', task='rest', provenance='simulated')

def long_epochs(learn, times):
    "Go over the training recordings `times` times in an epoch: checkpoints are written after each, and on a fast card an epoch is over in a moment"
    loader = learn.dls.train; windows = loader.dataset
    windows.rows, windows.lengths = np.tile(windows.rows, times), np.tile(windows.lengths, times)
    windows.set_epoch(0); loader.n = len(windows)

def train(a, name, store, split, scaler, folder, device, budget):
    "Pretrain one arrangement for about `budget` seconds → the model and what was measured"
    start, config, cuda = time.perf_counter(), preset(a.preset, n_parcels=store.n_parcels, attention=name), device.type=='cuda'
    training = Training(a.batch, mask_ratios=ratios, bf16=True, seed=a.seed, num_workers=a.workers, device=device, progress=a.progress)
    def learner(folder): return pretrain_learner(store, config, folder, split, scaler=scaler, training=training)
    work = {r: flops(config, store.parcellation, r, device) for r in ratios}
    trial = learner(f'{folder}-trial')
    bare = {r: bare_step(trial.model, a.batch, r, device, 5 if cuda else 1) for r in ratios}
    rate = len(ratios)/sum(1/v for v in bare.values())                      # the ratios come in turn, as in training
    times = max(1, int(10*rate/len(trial.dls.train.dataset))) if cuda else 1
    long_epochs(trial, times); n = len(trial.dls.train)*a.batch             # windows in an epoch
    wait(device); begin = time.perf_counter(); trial.pretrain(1, a.lr); wait(device)
    epochs = max(1, int(0.9*(budget-(time.perf_counter()-start))/(time.perf_counter()-begin))) if cuda else 1
    learn = learner(folder); long_epochs(learn, times); del trial
    if cuda: torch.cuda.reset_peak_memory_stats(device)
    wait(device); begin = time.perf_counter(); log = learn.pretrain(epochs, a.lr); wait(device)
    total, flop, rate_in = time.perf_counter()-begin, float(np.mean(list(work.values()))), float(log.windows_per_s.median())
    return learn.model, dict(parameters=sum(p.numel() for p in learn.model.parameters()), steps=epochs*n//a.batch, windows=epochs*n, seconds=total, gflop_per_window={f'{k:g}': v/1e9 for k,v in work.items()},
        windows_per_s=rate_in, tflops=flop*rate_in/1e12, windows_per_s_with_checkpoints=epochs*n/total, bare_windows_per_s={f'{k:g}': v for k,v in bare.items()}, bare_tflops=flop*rate/1e12,
        peak_gb=torch.cuda.max_memory_allocated(device)/1e9 if cuda else None, train_loss=[round(float(v), 4) for v in log.train_loss])

def data(a):
    "Recordings, and the word for where they come from"
    if a.data=='simulated': return list(simulated(a.subjects, 40)), 'simulated'
    if (mirror := root.parent/'shared'/'mirror').is_dir(): os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
    return fetch_hcp_rest(a.subjects), 'real HCP rest'

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--minutes', type=float, default=20, help='for everything after reading the data')
    p.add_argument('--batch', type=int); p.add_argument('--lr', type=float, default=1e-3); p.add_argument('--seed', type=int, default=0); p.add_argument('--workers', type=int)
    p.add_argument('--models', nargs='+', default=['axial','joint'], choices=['axial','joint']); p.add_argument('--json', metavar='OUT'); p.add_argument('--keep', metavar='DIR', help='keep the trained models there')
    p.add_argument('--cpu', action='store_true', help='the check on the CPU, even where there is a card')
    p.add_argument('--data', choices=['hcp','simulated'], default='hcp', help=argparse.SUPPRESS); p.add_argument('--subjects', type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    cuda = torch.cuda.is_available() and not a.cpu
    device = torch.device('cuda' if cuda else 'cpu')
    a.preset, a.progress = ('13m', None) if cuda else ('tiny', False)
    a.batch, a.subjects = a.batch or (32 if cuda else 4), a.subjects or (30 if cuda else 5)
    a.workers = a.workers if a.workers is not None else min(8, os.cpu_count()) if cuda else 0
    where = dict(device=torch.cuda.get_device_name(device) if cuda else f'CPU, {torch.get_num_threads()} threads', torch=torch.__version__, cuda=torch.version.cuda, python=platform.python_version(),
                 date=f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC')
    if not cuda: print('**No CUDA card is used here: this is a check of the script on the CPU, with a tiny model and a few steps. Its numbers say nothing about a card or about the model.**\n')
    recordings, word = data(a)
    if not cuda:
        for r in recordings: r.bold = r.bold[:600]
    start, models, out = time.perf_counter(), {}, dict(machine=where, data=word, settings={k: v for k,v in vars(a).items() if k not in ('json','keep')})
    with tempfile.TemporaryDirectory() as tmp:
        atlas = load_parcellation('glasser360')
        if word=='simulated': atlas = type(atlas).from_table(atlas.table.head(40), 'forty')
        store = RecordingStore.create(f'{tmp}/store', atlas); store.extend(recordings)
        split = store.split(valid=0., test=8/30 if a.subjects==30 else 0.5, seed=1)
        scaler = RobustScaler().fit(store, split)
        top, n = ceiling(device, (2048, 4096, 8192, 16384) if cuda else (512,)); out['ceiling_tflops'] = top
        prior = GaussianPrior(store.n_parcels); prior.fit(scaled_recordings(store, scaler, split)); prior.to(device)
        score_s = 60 if cuda else 5                                         # left for the scores
        for i,name in enumerate(a.models):
            left = 60*a.minutes - score_s - (time.perf_counter()-start)
            models[name], out[name] = train(a, name, store, split, scaler, f'{a.keep or tmp}/{name}', device, left/(len(a.models)-i))
        test = np.flatnonzero(split=='test')
        stats = evaluate({'gaussian': GaussianImputer(prior), **{k: model_predictor(m) for k,m in models.items()}}, TiledWindows(store, scaler, test), ratios=ratios, seed=1, batch_size=32 if cuda else 8, device=device)
        scores = score_table(stats, 'gaussian', title=f'{word}, {len(test)} test subjects')
        out['r2'] = {f'{m} {r:g}': float(v) for (m,r),v in score(stats).r2.items()}
        out['total_s'] = time.perf_counter()-start
    print(f"## Pretraining on {where['device']}, {a.preset}, bf16, batch {a.batch}, {word} ({(split=='train').sum()} training, {len(test)} test subjects)\n")
    print(', '.join(f'{k} {v}' for k,v in where.items())+f". bf16 matrix products reach {top:.3g} TFLOP/s here ({n} x {n}). Everything after reading the data: {out['total_s']/60:.1f} min.")
    table([{'model': k, 'parameters': f"{o['parameters']/1e6:.2f} M", 'steps': o['steps'], 'training, s': f"{o['seconds']:.0f}",
            'GFLOP a window at mask '+' / '.join(f'{r:g}' for r in ratios): ' / '.join(f'{v:.3g}' for v in o['gflop_per_window'].values()),
            'windows/s in training': f"{o['windows_per_s']:.3g}", 'share of the ceiling': f"{o['tflops']/top:.1%}", 'with checkpoints, windows/s': f"{o['windows_per_s_with_checkpoints']:.3g}",
            'bare step at each mask, windows/s': ' / '.join(f'{v:.3g}' for v in o['bare_windows_per_s'].values()), 'bare share': f"{o['bare_tflops']/top:.1%}",
            'peak memory, GB': f"{o['peak_gb']:.2f}" if o['peak_gb'] else 'not measured'} for k,o in out.items() if k in models])
    print("Windows/s in training: median over epochs, with loading and masking. A bare step repeats one batch that is on the card. FLOPs: matrix products of one forward and backward pass.\n")
    frame = scores.table
    table([{'model': i, **{' '.join(map(str, c)): v for c,v in r.items()}} for i,r in frame.iterrows()])
    print(scores.caption)
    if not cuda: print('\n**This was the check on the CPU: nothing above is a result.**')
    if a.json: Path(a.json).write_text(json.dumps(out, indent=1, default=str)+'\n')

if __name__=='__main__': main()
