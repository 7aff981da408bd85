"""What one card does with this package: speed, memory and agreement, as Markdown on the screen, gpu_speed.json and gpu_speed.tsv in a folder.

    python tools/gpu_speed.py --out DIR                 # 90 seconds on a card, everything that fits into them
    python tools/gpu_speed.py --out DIR --seconds 170   # with torch.compile as well
    python tools/gpu_speed.py --out DIR --only peaks train --shapes 13m-axial

Signals are random: speed does not ask what they mean. Without a card the same code runs at toy size on the CPU, in about
a minute, and says so: that checks the script, it measures nothing. What does not fit into the time is named at the end."""
import os

os.environ.setdefault('PYTORCH_CUDA_ALLOC_CONF', 'expandable_segments:True')
import argparse
import json
import multiprocessing
import platform
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from pathlib import Path

started = time.perf_counter()
import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from brainlm.masking import n_visible
from brainlm.model import BrainLM, preset
from brainlm.prior import SpaceTimePrior

ukb = 61_038*100                                                            # windows: recordings, one in each of 100 epochs
shapes = [('111m', 'joint'), ('13m', 'axial'), ('13m', 'joint'), ('111m', 'axial'), ('650m', 'axial'), ('650m', 'joint')]
ratio = .75                                                                 # of tokens hidden, as published

# Time, memory, energy

def wait(device):
    if device.type=='cuda': torch.cuda.synchronize(device)

def seconds(f, device, budget=.8, least=3, most=30):
    "Median seconds of a call of `f`, of about `budget` seconds of them, after one that is not counted"
    f(); wait(device)
    out = []
    while len(out)<least or (sum(out)<budget and len(out)<most):
        start = time.perf_counter(); f(); wait(device)
        out.append(time.perf_counter()-start)
    return float(np.median(out))

def joules(device):
    "What the card has used so far; None where the system does not tell"
    from brainlm.pretraining import energy_counters
    return energy_counters(device).get('card', (None,))[0]

def peak_gb(device, f):
    "The most memory that the card holds while `f` runs, GB"
    if device.type!='cuda': f(); return 0.
    torch.cuda.reset_peak_memory_stats(device); f(); wait(device)
    return torch.cuda.max_memory_allocated(device)/1e9

def peaks(a):
    "The highest rates of matrix products, TFLOP/s, and of a copy on the card, TB/s read and written"
    sizes = (4096, 8192, 12288) if a.cuda else (256,)
    def rate(n, dtype):
        x, y = (torch.randn(n, n, device=a.device, dtype=dtype) for _ in 'xy')
        out = torch.empty_like(x)
        return 2*n**3/seconds(lambda: torch.mm(x, y, out=out), a.device, .3)/1e12
    out = dict(bf16=max(rate(n, torch.bfloat16) for n in sizes))
    for name,how in (('tf32', 'high'), ('fp32', 'highest')):
        torch.set_float32_matmul_precision(how)
        out[name] = max(rate(n, torch.float32) for n in sizes[:2])
    x = torch.randn(2**30 if a.cuda else 2**20, device=a.device)
    y = torch.empty_like(x)
    return out | dict(copy_tb_s=2*4*len(x)/seconds(lambda: y.copy_(x), a.device, .2)/1e12)

# Matrix products of a window, counted

def _block(n, asked, width, mlp): return 2*(2*n*width**2 + 2*asked*width**2 + 2*asked*width*mlp)

def _attention(c, i, n, asked, width):
    P, K = c.n_parcels+1, c.n_patches
    if c.attention=='joint': return 4*asked*n*width
    return 4*K*P*P*width if i%2==0 else 4*P*K*K*width

def products(c, ratio=ratio):
    "Floating-point operations of the matrix products of one window: forward, and forward with backward. Nothing twice."
    n, cls = c.n_parcels*c.n_patches, 1 if c.attention=='joint' else c.n_patches
    seen, width, deep = n_visible(n, ratio), c.width, c.decoder_width
    hidden = n-seen
    first = 2*seen*c.patch_size*width                                       # its input asks for no gradient
    rest = 2*(seen+cls)*width*deep + 2*hidden*deep*c.patch_size
    for i in range(c.layers): rest += _block(seen+cls, seen+cls, width, c.mlp) + _attention(c, i, seen+cls, seen+cls, width)
    for i in range(c.decoder_layers):
        asked = hidden if i==c.decoder_layers-1 else n+cls
        rest += _block(n+cls, asked, deep, c.decoder_mlp) + _attention(c, i, n+cls, asked, deep)
    return first+rest, 2*first+3*rest

def encoding(c):
    "Operations of the encoder over a whole window, none of it hidden"
    n = c.n_parcels*c.n_patches + (1 if c.attention=='joint' else c.n_patches)
    return 2*n*c.patch_size*c.width + sum(_block(n, n, c.width, c.mlp) + _attention(c, i, n, n, c.width) for i in range(c.layers))

# A training step and what fits

def new_model(c, device, seed=0):
    torch.manual_seed(seed)
    with device: model = BrainLM(c)
    model.xyz_mm.copy_(torch.randn(c.n_parcels, 3)*40)
    return model

def bf16(device): return torch.autocast(device.type, torch.bfloat16)

class Step:
    "A step of training on random windows that stay on the device: forward, backward, clipped gradients, AdamW"
    def __init__(self, model, device):
        self.model, self.device = model.train(), device
        self.opt = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device.type=='cuda')
    def __call__(self, n):
        "A function that takes a step with n windows"
        c = self.model.config
        x = torch.randn(n, c.n_parcels, c.n_time, device=self.device)
        def step():
            with bf16(self.device): loss = self.model(x, mask_ratio=ratio).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.)
            self.opt.step()
            self.opt.zero_grad()
        return step

def emptied(device):
    if device.type=='cuda': torch.cuda.empty_cache()

def largest(step, device, most=1024, tries=3):
    "The largest batch that was seen to fit, and its memory: foretold from batches of two and four, then tried"
    if device.type!='cuda': return 4, 0.
    step(2)()
    two, four = (peak_gb(device, step(n)) for n in (2, 4))
    total, each = torch.cuda.get_device_properties(device).total_memory/1e9, max((four-two)/2, 1e-3)
    n = min(most, int((.93*total-two)/each)+2)
    for _ in range(tries):
        n = n//8*8 if n>=16 else n
        gb = tried(step, n, device)
        if gb: return n, gb
        n = int(n*.88)
    return 4, four

def tried(step, n, device):
    "GB of a step with n windows; None where they do not fit"
    try: return peak_gb(device, step(n))
    except (torch.OutOfMemoryError, RuntimeError) as e: print(f'{n} windows: {type(e).__name__}, {str(e)[:80]}', file=sys.stderr)
    gb = None
    step.opt.zero_grad()
    emptied(device)
    return gb

def trained(a, name, attention, batches=(32, 96)):
    "Speed and memory of a shape: the best of two batches"
    c = shape(a, name, attention)
    model = new_model(c, a.device)
    step = Step(model, a.device)
    fit, fit_gb = largest(step, a.device)
    emptied(a.device)
    best = None
    for n in sorted({min(n, max(fit*3//4, 2)) for n in (batches if a.cuda else (2, 4))}):
        f = step(n)
        gb = peak_gb(a.device, f)
        before, start = joules(a.device), time.perf_counter()
        s = seconds(f, a.device, 1.)
        used, took = joules(a.device), time.perf_counter()-start
        watts = None if before is None or used is None else (used-before)/took
        row = dict(batch=n, windows_per_s=n/s, peak_gb=gb, watts=watts)
        if best is None or row['windows_per_s']>best['windows_per_s']: best = row
        emptied(a.device)
    share = best['windows_per_s']*products(c)[1]/1e12/a.found['peaks']['bf16']
    out = dict(shape=name, attention=attention, parameters=sum(p.numel() for p in model.parameters()), gflop=products(c)[1]/1e9,
               share=share, largest_batch=fit, largest_gb=fit_gb, ukb_hours=ukb/best['windows_per_s']/3600) | best
    return out | inferred(a, model, c)

def inferred(a, model, c):
    "Embedding (CLS of whole windows) and filling in (ratio .75), windows/s in bf16"
    n = {'13m': 64, '111m': 64}.get(a.shape_name(c), 32) if a.cuda else 2
    x = torch.randn(n, c.n_parcels, c.n_time, device=a.device)
    model.eval()
    def embed():
        with torch.inference_mode(), bf16(a.device): model.encode(x)
    def fill():
        with torch.inference_mode(), bf16(a.device): model(x, mask_ratio=ratio)
    e, f = (n/seconds(o, a.device, .4) for o in (embed, fill))
    emptied(a.device)
    peak = a.found['peaks']['bf16']
    return dict(embed_per_s=e, embed_share=e*encoding(c)/1e12/peak, fill_per_s=f, fill_share=f*products(c)[0]/1e12/peak)

def shape(a, name, attention):
    size = dict(n_parcels=424) if a.cuda else dict(n_parcels=24, n_time=80)
    return preset(name if a.cuda else {'13m': 'nano', '111m': 'tiny', '650m': 'tiny'}[name], attention=attention, **size)

# Which attention

def attention_rate(a, heads, width, way):
    "TFLOP/s of attention alone, forward with backward, in one of PyTorch's own ways; or the name of what it raised"
    n, B = (4241, 16) if a.cuda else (60, 2)
    q, k, v = (torch.randn(B, heads, n, width, device=a.device, dtype=torch.bfloat16, requires_grad=True) for _ in 'qkv')
    def both():
        with sdpa_kernel(getattr(SDPBackend, way)): y = F.scaled_dot_product_attention(q, k, v)
        torch.autograd.grad(y, (q, k, v), y.detach())
    try: return 3*4*B*heads*n*n*width/seconds(both, a.device, .2)/1e12
    except Exception as e: return type(e).__name__

def kernels(a):
    "Attention at the decoders' shapes"
    ways = ('FLASH_ATTENTION', 'CUDNN_ATTENTION', 'EFFICIENT_ATTENTION') if a.cuda else ('MATH',)
    return [dict(heads=h, head_width=w, way=o.lower(), tflops=attention_rate(a, h, w, o)) for h,w in ((16, 32), (4, 128)) for o in ways]

@contextmanager
def preferred(name):
    "PyTorch's attention tries this way first"
    order = [getattr(SDPBackend, o) for o in (name, 'FLASH_ATTENTION', 'EFFICIENT_ATTENTION', 'MATH')]
    with sdpa_kernel(list(dict.fromkeys(order)), set_priority=True): yield

def with_cudnn(a):
    "The 111m shape, joint, with cuDNN's attention first"
    c = shape(a, '111m', 'joint')
    step, n = Step(new_model(c, a.device), a.device)(32 if a.cuda else 2), 32 if a.cuda else 2
    with preferred('CUDNN_ATTENTION') if a.cuda else nullcontext(): s = seconds(step, a.device, 1.)
    return dict(shape='111m', attention='joint', batch=n, windows_per_s=n/s, share=n/s*products(c)[1]/1e12/a.found['peaks']['bf16'])

# Where a step spends its time, and what changes it

parts = {
    'attention': ('flash', 'fmha', 'attention'), 'matrix products': ('gemm', 'cutlass', 'nvjet', 'splitk', '::mm', 'addmm'),
    'norms': ('layer_norm', 'LayerNorm'), 'optimiser': ('multi_tensor', 'adam'),
    'to and from the grid': ('index', 'gather', 'scatter', 'sort', 'radix', 'scan', 'cumsum'),
    'copies and casts': ('copy', 'Memcpy', 'Memset', 'Cat', 'fill'), 'sums': ('reduce',),
    'element by element': ('elementwise', 'triton', 'gelu', 'GELU')}

def part_of(kernel): return next((k for k,v in parts.items() if any(o in kernel for o in v)), 'else')

def spent(a):
    "Milliseconds of a step by what they go to, for two shapes, and the kernels that take most"
    rows = []
    for name,attention,n in (('13m', 'axial', 96), ('111m', 'joint', 32)):
        n = n if a.cuda else 2
        step = Step(new_model(shape(a, name, attention), a.device), a.device)(n)
        step(); step(); wait(a.device)
        kind = torch.profiler.ProfilerActivity.CUDA if a.cuda else torch.profiler.ProfilerActivity.CPU
        with torch.profiler.profile(activities=[kind]) as found:
            step(); wait(a.device)
        each, where = ('self_device_time_total', 'CUDA') if a.cuda else ('self_cpu_time_total', 'CPU')
        events = [e for e in found.key_averages() if e.device_type.name==where and not getattr(e, 'is_user_annotation', False)]
        ms = {e.key: getattr(e, each)/1e3 for e in events if getattr(e, each)}
        most = sorted(ms.items(), key=lambda o: -o[1])[:14]
        a.found.setdefault('kernels_by_time', []).extend(dict(shape=name, attention=attention, kernel=k[:150], ms=v) for k,v in most)
        total = sum(ms.values())
        for k in dict.fromkeys(map(part_of, ms)):
            mine = sum(v for o,v in ms.items() if part_of(o)==k)
            rows.append(dict(shape=name, attention=attention, part=k, batch=n, ms=mine, of_step=mine/max(total, 1e-9)))
        emptied(a.device)
    return rows

cudnn, blocks, wide = "cuDNN's attention", 'blocks compiled', '4 decoder heads'
tried_ways = [
    ('13m', 'axial', 96, ()), ('111m', 'joint', 32, ()), ('111m', 'joint', 32, (cudnn, blocks)), ('13m', 'axial', 96, (blocks,)),
    ('111m', 'joint', 32, (cudnn, blocks, wide)), ('111m', 'joint', 32, (blocks,))]

def one_way(a, name, attention, n, what):
    "Speed of a shape that is computed in another way, and how far its loss is from that of the usual one on the same windows"
    c = shape(a, name, attention)
    if wide in what and a.cuda: c = type(c)(**vars(c) | dict(decoder_heads=4))
    n = n if a.cuda else 2
    model, gen = new_model(c, a.device), torch.Generator().manual_seed(1)
    x, mask = torch.randn(2, c.n_parcels, c.n_time, generator=gen), torch.rand(2, c.n_parcels, c.n_patches, generator=gen)<ratio
    def loss():
        with torch.no_grad(), bf16(a.device): return float(model(x.to(a.device), mask=mask.to(a.device)).loss)
    usual = loss()
    with preferred('CUDNN_ATTENTION') if cudnn in what else nullcontext():
        off, start = abs(loss()/usual-1), time.perf_counter()
        if blocks in what:
            torch._dynamo.reset()
            for b in [*model.encoder, *model.decoder[:-1]]: b.compile(dynamic=False)
        step = Step(model, a.device)(n)
        step(); wait(a.device)
        took, before, start = time.perf_counter()-start, joules(a.device), time.perf_counter()
        s = seconds(step, a.device, 1.)
        used, gb = joules(a.device), peak_gb(a.device, step)
    watts = None if before is None else (used-before)/(time.perf_counter()-start)
    return dict(shape=name, attention=attention, batch=n, changed=', '.join(what) or 'as it is', windows_per_s=n/s, watts=watts, peak_gb=gb,
                share=n/s*products(c)[1]/1e12/a.found['peaks']['bf16'], ukb_hours=ukb*s/n/3600, loss_off=off, first_s=took)

def ways(a):
    "The two shapes computed in several ways"
    rows = []
    for way in tried_ways:
        if blocks in way[3] and not a.cuda: continue
        if a.left()<(35 if blocks in way[3] else 8): continue
        try:
            with within(max(a.left()-4, 1)) if a.cuda else nullcontext(): rows.append(one_way(a, *way))
        except Exception as e:
            rows.append(dict(shape=way[0], attention=way[1], changed=', '.join(way[3]), failed=f'{type(e).__name__}: {str(e)[:200]}'))
        emptied(a.device)
        a.found['ways'] = rows
        keep(a)
    return rows

# torch.compile

class Late(Exception): pass

@contextmanager
def within(s):
    "Late after `s` seconds"
    def stop(*_): raise Late(f'not done in {s:.0f} s')
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(s, 1))
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

def compiled(a):
    "The 111m shape with its blocks compiled, one at a time as they are alike: seconds of compiling, windows/s"
    rows, n = [], 32 if a.cuda else 2
    for attention in ('joint', 'axial'):
        c = shape(a, '111m', attention)
        try:
            with within(a.left()-6):
                model = new_model(c, a.device)
                for b in [*model.encoder, *model.decoder[:-1]]: b.compile(dynamic=False)
                step, start = Step(model, a.device)(n), time.perf_counter()
                step(); wait(a.device)
                took = time.perf_counter()-start
                rate = n/seconds(step, a.device, 1.)
                gb = peak_gb(a.device, step)
            rows.append(dict(shape='111m', attention=attention, batch=n, compile_s=took, windows_per_s=rate, peak_gb=gb,
                             share=rate*products(c)[1]/1e12/a.found['peaks']['bf16']))
        except Exception as e: rows.append(dict(shape='111m', attention=attention, failed=f'{type(e).__name__}: {str(e)[:200]}'))
        emptied(a.device)
    return rows

# The prior

def made_up_prior(n, device='cpu'):
    "A prior of n parcels that share a few slow waves"
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((n, 20))
    p = SpaceTimePrior(n).set(np.zeros(n), (mix@mix.T/20 + np.eye(n))/2)
    p.spectra.copy_(torch.linspace(4, .2, len(p.edges))[:,None].expand_as(p.spectra)*torch.linspace(1.2, .8, n))
    return p.to(device)

def guesses(prior, n, ratio, parts, budget):
    "Windows a second that the prior fills in"
    P, device = len(prior.mean), prior.mean.device
    x = torch.randn(n, P, 10, 20, device=device)
    see = torch.rand(n, P, 10, device=device)>=ratio
    return n/seconds(lambda: prior.guess(x, see, parts=parts), device, budget, least=2)

def prior_on_device(a):
    p, n = made_up_prior(424 if a.cuda else 24, a.device), 32 if a.cuda else 2
    ways = {'EM': ('window',), 'EM, space and time': ('window','time')}
    return [dict(where=str(a.device), ratio=r, parts=k, batch=n, per_s=guesses(p, n, r, v, .8)) for r in (.2, .75) for k,v in ways.items()]

def prior_worker(n_parcels, budget):
    "Wait for a line, then measure and print"
    torch.set_num_threads(1)
    p = made_up_prior(n_parcels)
    sys.stdin.readline()
    print(json.dumps([guesses(p, 2, r, ('window','time'), budget) for r in (.2, .75)]))

def prior_workers(a):
    "A process of one thread for each core, which waits"
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    job = [sys.executable, __file__, '--prior-worker', str(424 if a.cuda else 24), '2' if a.cuda else '.2']
    n = multiprocessing.cpu_count() if a.cuda else 1
    if a.only and 'prior_cpu' not in a.only: return []
    return [subprocess.Popen(job, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(n)]

def prior_on_cpu(a, running):
    "All cores at once, a process of one thread on each"
    for o in running:
        o.stdin.write('go\n')
        o.stdin.flush()
    rates = np.array([json.loads(o.communicate(timeout=60)[0].splitlines()[-1]) for o in running])
    return [dict(where=f'{len(running)} CPU cores, a process each', ratio=r, parts='EM, space and time', batch=2, per_s=float(s))
            for r,s in zip((.2, .75), rates.sum(0), strict=True)]

# Agreement

def distances(a, attention):
    "Relative distances of the device from the CPU, in fp32 and bf16, for the shape 13m"
    c = shape(a, '13m', attention)
    model, gen = new_model(c, torch.device('cpu')).eval(), torch.Generator().manual_seed(1)
    x, mask = torch.randn(2, c.n_parcels, c.n_time, generator=gen), torch.rand(2, c.n_parcels, c.n_patches, generator=gen)<ratio
    with torch.inference_mode():
        ref = model(x, mask=mask)
        model.to(a.device)
        got = model(x.to(a.device), mask=mask.to(a.device))
        with bf16(a.device): low = model(x.to(a.device), mask=mask.to(a.device))
    def off(o): return float((o.prediction.float().cpu()-ref.prediction)[mask].norm()/ref.prediction[mask].norm())
    def lost(o): return float(abs(o.loss.float().cpu()-ref.loss)/ref.loss)
    return dict(fp32_prediction_off=off(got), fp32_loss_off=lost(got), bf16_prediction_off=off(low), bf16_loss_off=lost(low))

def equal(a):
    "Forward on the CPU and on the device, and whether all distances are within their limits"
    torch.set_float32_matmul_precision('highest')
    limits = dict(fp32_prediction_off=1e-4, fp32_loss_off=1e-5, bf16_prediction_off=3e-2, bf16_loss_off=5e-3)
    rows = [dict(shape='13m', attention=o) | distances(a, o) for o in ('joint','axial')]
    for r in rows: r['within'] = bool(all(r[k]<v for k,v in limits.items()))
    return dict(rows=rows, limits=limits)

def simulated_store(folder, n, parcels, n_time=490):
    from brainlm.atlas import load_parcellation
    from brainlm.recordings import Recording, RecordingStore
    atlas = load_parcellation('a424')
    if parcels!=424: atlas = type(atlas).from_table(atlas.table.head(parcels), 'few')
    rng = np.random.default_rng(0)
    store = RecordingStore.create(folder, atlas)
    block = rng.standard_normal((2*n_time, parcels), dtype='float32')
    at = rng.integers(0, n_time, n)
    store.extend([Recording(block[k:k+n_time].copy(), .72, f's{i:04}', provenance='simulated') for i,k in enumerate(at)])
    return store

def resumed(a, folder):
    "Two trainings of four epochs in one piece, and one ended after the second and taken up again: are the weights the same?"
    from fastai.callback.core import Callback, CancelFitException

    from brainlm.pretraining import Training, pretrain_learner
    store = simulated_store(f'{folder}/few', 12, 24)
    class Stop(Callback):
        order = 95
        def after_epoch(self):
            if self.epoch==1: raise CancelFitException
    def learner(name, attention): return pretrain_learner(store, preset('nano', n_parcels=24, attention=attention, prior='gaussian'), f'{folder}/{name}',
        training=Training(4, seed=1, bf16=True, device=a.device, progress=False))
    rows = []
    for attention in ('joint', 'axial'):
        one, two = (learner(f'{attention}{k}', attention) for k in (1, 2))
        for o in (one, two): o.pretrain(4)
        with (half := learner(f'{attention}3', attention)).added_cbs(Stop()): half.pretrain(4)
        rest = learner(f'{attention}3', attention)
        rest.pretrain(4, resume=True)
        far = lambda x, y: max(float((p-q).detach().abs().max()) for p,q in zip(x.model.parameters(), y.model.parameters(), strict=True))
        rows.append(dict(attention=attention, same_run_twice=far(one, two), resumed=far(one, rest)))
    return rows

# The loop that users run

def loop(a, folder):
    "Windows/s of `pretrain_learner` with its loader, masks and log, epochs of about four seconds, beside the bare step"
    from brainlm.pretraining import Training, pretrain_learner
    store = simulated_store(f'{folder}/many', 256 if a.cuda else 6, 424 if a.cuda else 24)
    rows, cores = [], multiprocessing.cpu_count()
    for attention in ('axial', 'joint'):
        bare = next((r for r in a.found.get('train', []) if r['shape']=='13m' and r['attention']==attention), None)
        batch = 64 if a.cuda else 2
        t = Training(batch, mask_ratios=(ratio,), bf16=True, device=a.device, progress=False, num_workers=min(12, cores-2) if a.cuda else 0)
        learn = pretrain_learner(store, shape(a, '13m', attention) if a.cuda else preset('nano', n_parcels=24), f'{folder}/loop-{attention}',
                                 store.split(valid=0., test=0.), training=t)
        if a.cuda: longer(learn, max(1, int(4*(bare['windows_per_s'] if bare else 500)/(3*len(store)))))
        log = learn.pretrain(2, 1e-4)
        rate = float(log.windows_per_s.iloc[-1])
        rows.append(dict(shape='13m', attention=attention, batch=batch, workers=t.num_workers, windows_per_s=rate,
                         first_epoch_per_s=float(log.windows_per_s.iloc[0]), of_bare=rate/bare['windows_per_s'] if bare else None))
    return rows

def longer(learn, times):
    "Go over the recordings `times` times in an epoch, as if there were so many more"
    loader = learn.dls.train
    windows = loader.dataset
    windows.rows, windows.lengths = np.tile(windows.rows, times), np.tile(windows.lengths, times)
    windows.set_epoch(0)
    loader.n = len(windows)

# All of it

def said(v): return f'{v:.3g}' if isinstance(v, float) else '' if v is None else f'{v:,}' if isinstance(v, int) and not isinstance(v, bool) else str(v)

def table(title, rows):
    "Print dicts as a Markdown table"
    cols = list(dict.fromkeys(k for r in rows for k in r))
    print(f'\n**{title}**\n\n| '+' | '.join(cols)+' |\n|'+'---|'*len(cols))
    for r in rows: print('| '+' | '.join(said(r.get(c)) for c in cols)+' |')
    sys.stdout.flush()

def long_rows(found):
    "Each number of the sections in a row of its own"
    for section,part in found.items():
        rows = part if isinstance(part, list) else part.get('rows', [part])
        for r in rows:
            words = ', '.join(f'{k} {v}' if isinstance(v, float) else str(v) for k,v in r.items() if isinstance(v, str) or k=='ratio')
            for k,v in r.items():
                if isinstance(v, (int, float)) and k!='ratio': yield section, words, k, v

def keep(a):
    "Write what there is so far"
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out/'gpu_speed.json').write_text(json.dumps(dict(machine=a.where, **a.found, left_out=a.skipped), indent=1, default=str)+'\n')
    lines = ['\t'.join(map(str, (*r, a.where['device'], a.where['date']))) for r in long_rows(a.found)]
    (a.out/'gpu_speed.tsv').write_text('\n'.join(['section\twhat\tmeasure\tvalue\tdevice\tdate', *lines])+'\n')

def section(a, name, needs, f, title):
    "Run a part where there is time for it; a part that fails costs itself"
    if a.only and name not in a.only: return
    if a.left()<needs:
        a.skipped[f'{name}: {title}'] = f'needs about {needs:g} s, {a.left():.0f} s were left'
        return
    start = time.perf_counter()
    try:
        with within(min(4*needs, a.left()+10)) if a.cuda else nullcontext(): part = f()
        a.found.setdefault(name, []).append(part) if name=='train' else a.found.update({name: part})
        if name!='train': table(title, part if isinstance(part, list) else part.get('rows', [part]))
    except Exception as e:
        a.skipped[f'{name} {title}'] = f'{type(e).__name__}: {str(e)[:400]}'
        print(f'{name}: failed, {type(e).__name__}: {str(e)[:400]}', flush=True)
    emptied(a.device)
    print(f'({name} {time.perf_counter()-start:.1f} s)', file=sys.stderr, flush=True)
    keep(a)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--out', type=Path, help='folder of gpu_speed.json and gpu_speed.tsv')
    p.add_argument('--seconds', type=float, default=90, help='for everything, from the start of the script')
    p.add_argument('--only', nargs='+', metavar='SECTION', help='peaks, equal, train, spent, ways, prior, prior_cpu, resumed, cudnn, loop, kernels, compiled')
    p.add_argument('--shapes', nargs='+', metavar='SHAPE', help='of the section train, such as 13m-axial; all of them without')
    p.add_argument('--cpu', action='store_true', help='the check on the CPU, even where there is a card')
    p.add_argument('--prior-worker', nargs=2, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.prior_worker: return prior_worker(int(a.prior_worker[0]), float(a.prior_worker[1]))
    if a.out is None: p.error('--out: found nothing, expected a folder')
    a.cuda = torch.cuda.is_available() and not a.cpu
    a.device, a.found, a.skipped = torch.device('cuda', 0) if a.cuda else torch.device('cpu'), {}, {}
    a.left = lambda: a.seconds-(time.perf_counter()-started)
    a.shape_name = lambda c: {512: '13m', 768: '111m', 1280: '650m'}.get(c.width, '')
    a.where = dict(device=torch.cuda.get_device_name(a.device) if a.cuda else 'CPU, toy sizes', torch=torch.__version__, cuda=torch.version.cuda,
                   python=platform.python_version(), cores=multiprocessing.cpu_count(), date=f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC')
    if not a.cuda: print('**No CUDA card is used here: a check of the script at toy size. None of its numbers is a result.**')
    print(', '.join(f'{k} {v}' for k,v in a.where.items()), flush=True)
    with tempfile.TemporaryDirectory() as tmp: run(a, tmp)
    if not a.cuda: print('\n**This was the check on the CPU: nothing above is a result.**')

def run(a, tmp):
    running = prior_workers(a)
    try: sections(a, tmp, running)
    finally:
        for o in running: o.kill()

def sections(a, tmp, running):
    section(a, 'peaks', 5, lambda: peaks(a), 'Highest rates measured: matrix products TFLOP/s, copy TB/s')
    section(a, 'equal', 6, lambda: equal(a), 'The same on CPU and device: relative distance')
    wanted = [o for o in shapes if not a.shapes or '-'.join(o) in a.shapes]
    for name,attention in wanted: section(a, 'train', 7, lambda n=name, t=attention: trained(a, n, t), f'{name} {attention}')
    if rows := a.found.get('train'):
        table('Training, bf16, 424 x 200, mask .75; products of a step counted; UKB-size is 61,038 x 100 windows', rows)
    section(a, 'spent', 6, lambda: spent(a), 'A step by what it goes to')
    section(a, 'ways', 20, lambda: ways(a), 'A step in other ways')
    section(a, 'prior', 6, lambda: prior_on_device(a), 'Guesses of the prior, windows a second')
    section(a, 'prior_cpu', 7, lambda: prior_on_cpu(a, running), 'Guesses of the prior on the CPU cores')
    section(a, 'resumed', 9, lambda: resumed(a, tmp), 'Training taken up again: largest difference of a weight')
    section(a, 'cudnn', 4, lambda: with_cudnn(a), "111m, joint, with cuDNN's attention")
    section(a, 'loop', 14, lambda: loop(a, tmp), 'The whole loop with its loader, windows/s')
    section(a, 'kernels', 4, lambda: kernels(a), 'Attention alone, forward with backward, TFLOP/s')
    if a.cuda: section(a, 'compiled', 25, lambda: compiled(a), 'Blocks compiled')
    if a.skipped: print('\nLeft out:', *(f'{k} ({v})' for k,v in a.skipped.items()), sep='\n- ')
    print(f'\n{time.perf_counter()-started:.0f} s from the start of the script.')
    keep(a)

if __name__=='__main__': main()
