"""Speed and memory on this machine, as Markdown: a training step (`step`), how near everything is to its limit (`limits`), a large store (`store`), files read beside nilearn (`read`), and how soon a model has learned something (`learn`).

    make bench                                   # everything, at most about 25 minutes on 2 cores
    make bench ARGS='--only store'               # one section, two minutes at most
    make bench ARGS='--only step --reference DIR --reference-python PY'

DIR is a checkout of github.com/vandijklab/BrainLM, PY an interpreter with torch and transformers <= 4.57, which that code needs. From DIR the classes
`brainlm_mae.configuration_brainlm.BrainLMConfig` and `brainlm_mae.modeling_brainlm.BrainLMForPretraining` are imported while the benchmark runs, with random weights."""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

# Only the standard library up here: the worker of the reference runs where brainlm is not installed.

root = Path(__file__).resolve().parents[1]
published = dict(rate=0.17, peak_gb=12.9)                                   # windows/s and GB of the reference on 2 threads, batch 8, fp32
targets = {'joint': 'at least 2 times the throughput, under 1/3 of the memory', 'axial': 'at least 3.5 times the throughput'}
shape = dict(n_parcels=424, n_time=200, patch_size=20, width=512, layers=4, heads=4, mlp=1024, decoder_width=512, decoder_layers=2, decoder_heads=4, decoder_mlp=1024)

# What every section needs

def table(rows):
    "Print dicts as a Markdown table"
    cols = list(dict.fromkeys(k for r in rows for k in r))
    print('\n| '+' | '.join(cols)+' |\n|'+'---|'*len(cols))
    for r in rows: print('| '+' | '.join(str(r.get(c, '')) for c in cols)+' |', flush=True)
    print()

def facts(threads):
    "What the numbers depend on"
    import torch
    cpu = next((l.split(':')[1].strip() for l in open('/proc/cpuinfo') if l.startswith('model name')), platform.processor()) if os.path.exists('/proc/cpuinfo') else platform.processor()
    return dict(cpu=cpu, cores=os.cpu_count(), threads=threads, torch=torch.__version__, python=platform.python_version(),
                date=f'{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC', load=round(os.getloadavg()[0], 1))

def say(d): return ', '.join(f'{k} {v}' for k,v in d.items())

def spread(xs, form='.2f'): return f'{statistics.median(xs):{form}} ({min(xs):{form}}-{max(xs):{form}})'

def peak_gb():
    "The most memory that this process has held, in GB of 10^9 bytes"
    if os.path.exists('/proc/self/status'): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM'))*1024/1e9
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)/1e9

# step: a training step at the size of the published 13M model

def our_model(attention, size):
    "A function of a signal that gives the loss, and the parameters; the joint one knows where it is as the published model does"
    import torch

    from brainlm.model import BrainLM, BrainLMConfig
    places = dict(parcel_embedding=False, xyz='linear') if attention=='joint' else {}
    model = BrainLM(BrainLMConfig(attention=attention, mask_ratio=0.75, **places, **size)).train()
    model.xyz_mm.copy_(torch.randn(size['n_parcels'], 3)*40)
    return (lambda x: model(x).loss), model

def reference_model(path, size):
    "The same for the published code in the checkout `path`"
    import torch
    sys.path.insert(0, str(path))
    from brainlm_mae.configuration_brainlm import BrainLMConfig
    from brainlm_mae.modeling_brainlm import BrainLMForPretraining
    names = dict(n_parcels='num_brain_voxels', n_time='num_timepoints_per_voxel', patch_size='timepoint_patching_size', width='hidden_size', layers='num_hidden_layers',
                 heads='num_attention_heads', mlp='intermediate_size', decoder_width='decoder_hidden_size', decoder_layers='decoder_num_hidden_layers',
                 decoder_heads='decoder_num_attention_heads', decoder_mlp='decoder_intermediate_size')
    model = BrainLMForPretraining(BrainLMConfig(mask_ratio=0.75, **{names[k]:v for k,v in size.items()})).train()
    xyz = torch.randn(size['n_parcels'], 3)*40
    return (lambda x: model(signal_vectors=x, xyz_vectors=xyz.expand(len(x), -1, -1)).loss), model

def step_worker(case, size, batch, micro, steps, threads, reference=None):
    "Seconds of each training step of `batch` windows, gradients gathered over micro-batches of `micro`; in a process of its own"
    import torch
    torch.set_num_threads(threads); torch.manual_seed(0)
    loss, model = reference_model(reference, size) if case=='reference' else our_model(case, size)
    opt, x, seconds = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05), torch.randn(batch, size['n_parcels'], size['n_time']), []
    loss(x[:1]).backward()                                                  # warm-up, not counted
    for _ in range(steps):
        opt.zero_grad(); start = time.perf_counter(), time.process_time()
        for part in x.split(micro): (loss(part)*(len(part)/batch)).backward()
        opt.step(); seconds.append((time.perf_counter()-start[0], time.process_time()-start[1]))
    return dict(seconds=[s for s,_ in seconds], cpu_seconds=[s for _,s in seconds], peak_gb=peak_gb(), parameters=sum(p.numel() for p in model.parameters()), torch=torch.__version__)

def in_a_process(job, python=sys.executable):
    "What `step_worker` returns in a fresh process; RuntimeError with the end of what it printed"
    env = {**os.environ, **{k: str(job['threads']) for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}}
    r = subprocess.run([python, __file__, '--worker', json.dumps(job)], capture_output=True, text=True, env=env)
    if r.returncode: raise RuntimeError(f"{job['case']}: the process ended with {r.returncode}\n{r.stderr[-2000:]}")
    return json.loads(r.stdout.splitlines()[-1])

def step(a):
    "Time and memory of a training step, ours and, with --reference, the published one, in turn"
    size = {**shape, **json.loads(a.size)}
    cases = [(c,m) for c in ('joint','axial') for m in a.micro]
    if a.reference: cases = [('reference', a.batch)] + cases + ([('reference', 1)] if a.batch>1 else [])
    results = {}
    for turn in range(a.turns):
        for case,micro in cases:
            print(f'step: {case}, {a.batch//micro} x {micro} windows, turn {turn+1} of {a.turns}', file=sys.stderr)
            job = dict(case=case, size=size, batch=a.batch, micro=micro, steps=a.steps, threads=a.threads, reference=a.reference and str(Path(a.reference).resolve()))
            r = in_a_process(job, a.reference_python if case=='reference' else sys.executable)
            old = results.setdefault((case,micro), {**r, 'seconds':[], 'cpu_seconds':[], 'peak_gb':0})
            old.update(seconds=old['seconds']+r['seconds'], cpu_seconds=old['cpu_seconds']+r['cpu_seconds'], peak_gb=max(old['peak_gb'], r['peak_gb']))
    base, rows = results.get(('reference', a.batch)), []
    for (case,micro),r in results.items():
        rate = a.batch/statistics.median(r['seconds'])
        row = {'model': case, 'windows': f'{a.batch//micro} x {micro}', 'parameters': f"{r['parameters']/1e6:.2f} M", 'seconds a step, median (range)': spread(r['seconds']),
               'CPU s': f"{statistics.median(r['cpu_seconds']):.2f}", 'windows/s': f'{rate:.3f}', 'peak memory, GB': f"{r['peak_gb']:.2f}"}
        if size==shape and a.batch==8: row['throughput / memory against the published figure¹'] = f"{rate/published['rate']:.2f} / {r['peak_gb']/published['peak_gb']:.2f}"
        if base: row['the same against the reference measured here²'] = f"{rate*statistics.median(base['seconds'])/a.batch:.2f} / {r['peak_gb']/base['peak_gb']:.2f}"
        rows.append(row)
    print(f"## A training step: forward, backward, AdamW; {size['n_parcels']} x {size['n_time']}, width {size['width']}, {size['layers']} + {size['decoder_layers']} layers, "
          f"mask 0.75, {a.batch} windows, fp32, {a.threads} threads, simulated noise")
    table(rows)
    print(f"Windows a x b: a micro-batches of b windows, one optimiser step. {a.steps} steps in each of {a.turns} processes, after a warm-up with one window; on a busy machine CPU s (all threads) tell more than seconds. Peak memory: of the whole process.")
    if size==shape and a.batch==8: print(f"¹ {published['rate']} windows/s and {published['peak_gb']} GB: published figure on a like machine (2 threads, batch 8 at once), not measured here. "
                          f"Aims: joint {targets['joint']}; axial {targets['axial']}.")
    if base: print(f"² Measured in turn with ours; reference with torch {base['torch']}, batch {a.batch} at once.")
    print()
    return [dict(case=c, micro=m, batch=a.batch, **r) for (c,m),r in results.items()]

# limits: what matrix products alone would take

def cpu_s(f, n=2):
    "Least CPU seconds of a few calls"
    found = []
    for _ in range(n):
        start = time.process_time(); f()
        found.append(time.process_time()-start)
    return min(found)

def uses_of(attention, size):
    "What a model is used for with one window: name → (function, operations of its matrix products, nothing counted twice)"
    import torch
    from gpu_speed import encoding, products
    model = our_model(attention, size)[1]
    c, x = model.config, torch.randn(1, size['n_parcels'], size['n_time'])
    n, P, K = c.n_parcels*c.n_patches+1, c.n_parcels+1, c.n_patches
    scores, n = len(model.parcel_layers)*2*c.width*(n*n if attention=='joint' else K*P*P), n if attention=='joint' else K*P
    maps = encoding(type(c)(**vars(c) | dict(layers=model.parcel_layers[-1]))) + 4*n*c.width**2 + scores
    def still(f):
        def call():
            with torch.no_grad(): f()
        return call
    return {'training step': (lambda: model(x).loss.backward(), products(c, .75)[1]), 'filling in': (still(lambda: model(x)), products(c, .75)[0]),
            'embedding': (still(lambda: model.encode(x)), encoding(c)), 'attention maps': (still(lambda: model.attention_maps(x)), maps)}

def prior_uses(size):
    "The same for the Gaussian of a prior, whose factors are of symmetric matrices"
    import torch
    from gpu_speed import made_up_prior

    from brainlm.prior import GaussianPrior
    P, K, S = size['n_parcels'], size['n_time']//size['patch_size'], size['patch_size']
    prior, patches = made_up_prior(P), torch.randn(1, P, K, S)
    see, many = torch.rand(1, P, K)>.75, prior.cov.expand(K, P, P)
    factors = K*P**3/3
    return {"prior's Cholesky": (lambda: torch.linalg.cholesky_ex(many), factors),
            "prior's guess": (lambda: GaussianPrior.forward(prior, patches, see), factors+K*4*P*P*S)}

def limits(a):
    "CPU seconds of a window, beside what its matrix products would take at the highest rate measured here"
    import torch
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    size = {**shape, **json.loads(a.size)}
    n = 2048 if size==shape else 64
    x, y = torch.randn(n, n), torch.randn(n, n)
    peak, rows = 2*n**3/cpu_s(lambda: x@y, 5), []
    for name in ('joint', 'axial', ''):
        for use,(f,flop) in (uses_of(name, size) if name else prior_uses(size)).items():
            took = cpu_s(f)
            rows.append({'model': name, 'use': use, 'CPU s': f'{took:.3f}', 'limit, CPU s': f'{flop/peak:.3f}', 'share': f'{flop/peak/max(took, 1e-9):.0%}'})
    print(f"## How near to the limit: one window of {size['n_parcels']} x {size['n_time']}, width {size['width']}, fp32; products at {peak/1e9:.0f} GFLOP a CPU second, the most measured here")
    table(rows)
    return rows

# store: many recordings, and the rates of writing and reading

def simulated(n, n_time, parcels, seed=0):
    "`n` simulated recordings, one a subject, that share one block of noise"
    import numpy as np

    from brainlm.recordings import Recording
    bold = np.random.default_rng(seed).standard_normal((n_time, parcels), dtype='float32')
    for i in range(n):
        yield Recording(bold, 0.735, f'sim{i:07}', session='2', task='rest', covariates=dict(age=40+i%30, sex='FM'[i%2]), source=f'sim{i:07}_20227_2_0.dat', provenance='simulated')

def timed(f):
    start = time.perf_counter(); r = f()
    return time.perf_counter()-start, r

def many(folder, n):
    "Seconds to write, open and split a store of `n` recordings of two time points"
    from brainlm.atlas import Parcellation, load_parcellation
    from brainlm.recordings import RecordingStore
    atlas = Parcellation.from_table(load_parcellation('glasser360').table.head(2), 'two')
    store = RecordingStore.create(folder, atlas, chunk_rows=1<<16)
    write, _ = timed(lambda: store.extend(simulated(n, 2, 2)))
    opened = [timed(lambda: RecordingStore(folder)) for _ in range(5)]
    tables, splits = [timed(lambda: RecordingStore(folder).table)[0] for _ in range(5)], [timed(lambda: opened[0][1].split())[0] for _ in range(5)]
    assert len(opened[0][1])==n
    return write, [o[0] for o in opened], tables, splits

def visit(items, source=None):
    "Go through items, or through those of `source` that these numbers name, and keep nothing"
    for o in items:
        if source is not None: source[o]

def store(a):
    "A store of a whole biobank's table, then writing and reading recordings of 490 x 424"
    import numpy as np
    import torch

    from brainlm.atlas import load_parcellation
    from brainlm.recordings import RecordingStore
    from brainlm.scaling import RobustScaler
    from brainlm.windows import RandomWindows, window_dls
    torch.set_num_threads(a.threads)
    with tempfile.TemporaryDirectory(dir=a.dir) as tmp:
        write, opens, tables, splits = many(Path(tmp)/'many', a.recordings)
        print(f'## A store of {a.recordings:,} simulated recordings (2 time points x 2 parcels each; subject, task, two covariates and a file name in the table)')
        table([{'what': 'written in one commit', 'seconds, median (range) of 5': f'{write:.2f}', 'aim': ''},
               {'what': 'opened', 'seconds, median (range) of 5': spread(opens, '.3f'), 'aim': 'under 2 s'},
               {'what': 'opened, with its table as a DataFrame', 'seconds, median (range) of 5': spread(tables, '.3f'), 'aim': 'under 2 s'},
               {'what': 'split by subject', 'seconds, median (range) of 5': spread(splits, '.3f'), 'aim': 'under 5 s'}])
        n, mb = a.ingest, 490*424*4/1e6
        big = RecordingStore.create(Path(tmp)/'big', load_parcellation('a424'))
        ingest, _ = timed(lambda: big.extend(simulated(n, 490, 424)))
        rng, reads = np.random.default_rng(0), 5*n
        where = list(zip(rng.integers(n, size=reads), rng.integers(291, size=reads)))
        read, _ = timed(lambda: [big.read(int(i), int(s), 200) for i,s in where])
        scaler = RobustScaler().fit(big, np.array(['train']*n))
        rows = [{'what': 'recordings written, one commit', 'n': n, 'a second': f'{n/ingest:.0f}', 'MB/s': f'{n*mb/ingest:.0f}'},
                {'what': 'random windows, `store.read`', 'n': reads, 'a second': f'{reads/read:.0f}', 'MB/s': f'{reads*0.3392/read:.0f}'}]
        out = dict(recordings=a.recordings, write=write, open=opens, open_table=tables, split=splits, ingest_per_s=n/ingest, read_per_s=reads/read)
        for name,workers in (('`RandomWindows`, no loader', None), ('data loader, in the process', 0), ('data loader, 2 workers', 2)):
            windows = RandomWindows(big, scaler)
            loader = windows if workers is None else window_dls(windows, batch_size=8, num_workers=workers, device='cpu').train
            read_all = partial(visit, range(len(windows)) if workers is None else loader, windows if workers is None else None)
            for which in ('first', 'second'):
                seconds, _ = timed(read_all)
                rate = len(windows)/seconds
                rows.append({'what': f'{name}, {which} epoch', 'n': len(windows), 'a second': f'{rate:.0f}', 'MB/s': f'{rate*0.3392:.0f}'})
                out[f'{name}, {which} epoch'] = rate
    print('## Writing recordings of 490 x 424 and reading windows of 200 x 424, simulated noise')
    table(rows)
    print("In a temporary folder on a disk whose pages are still in memory; windows are scaled; the first epoch also reads each recording whole, for the mean that scaling subtracts.\n")
    return out

# read: from a file to the series of parcels, beside nilearn

def painted(folder, n):
    "n frames in a 4-D image (2 mm) and on grayordinates, float32 and not packed"
    import nibabel as nib
    import numpy as np

    from brainlm.datasets import fetch_atlas
    atlas,rng = fetch_atlas('a424'),np.random.default_rng(0)
    x = (1000+10*rng.standard_normal((n, 425))).astype('float32')
    lab,gray = nib.load(atlas.volume),nib.load(atlas.dlabel)
    img = nib.Nifti1Image(x.T[np.asarray(lab.dataobj).astype(int)], lab.affine)
    img.header.set_zooms((2, 2, 2, .72)); img.set_sform(lab.affine, 4); nib.save(img, folder/'sub-1_bold.nii')
    axes = nib.cifti2.SeriesAxis(0, .72, n),gray.header.get_axis(1)
    nib.save(nib.Cifti2Image(x[:,np.asarray(gray.dataobj)[0].astype(int)], axes), folder/'sub-1_bold.dtseries.nii')
    return atlas,folder/'sub-1_bold.nii',folder/'sub-1_bold.dtseries.nii'

def nilearn_cifti(f, atlas):
    "The cortex of a dense series by nilearn's masker of surfaces; nilearn reads no CIFTI, so nibabel does"
    import nibabel as nib
    import numpy as np
    from nilearn.maskers import SurfaceLabelsMasker
    from nilearn.surface import InMemoryMesh, PolyData, PolyMesh, SurfaceImage
    def halves(img, data):
        axis = img.header.get_axis(1); out = {}
        for side in ('left','right'):
            own = axis.name==f'CIFTI_STRUCTURE_CORTEX_{side.upper()}'
            out[side] = np.zeros((32492, len(data)), data.dtype); out[side][axis.vertex[own]] = data[:,own].T
        return out
    flat = InMemoryMesh(np.random.default_rng(0).random((32492, 3)), np.arange(32490)[:,None]+np.arange(3))
    mesh = PolyMesh(left=flat, right=flat)
    gray,img = nib.load(atlas.dlabel),nib.load(f)
    labels = {k: v[:,0].astype(int) for k,v in halves(gray, np.asarray(gray.dataobj)).items()}
    series = halves(img, np.asarray(img.dataobj))
    return SurfaceLabelsMasker(SurfaceImage(mesh, PolyData(**labels)), standardize=None).fit_transform(SurfaceImage(mesh, PolyData(**series)))

def read(a):
    "Milliseconds of CPU a frame, from the file to the series"
    import numpy as np
    from nilearn.maskers import NiftiLabelsMasker

    from brainlm.preprocessing import read_recording
    def cpu(f, n=3):
        best = []
        for _ in range(n):
            t = time.process_time(); res = f(); best.append((time.process_time()-t)*1e3/60)
        return min(best),res
    with tempfile.TemporaryDirectory(dir=a.dir) as d:
        atlas,volume,dense = painted(Path(d), 60)
        rows = []
        for form,theirs,ours in (('4-D NIfTI, 2 mm', lambda: NiftiLabelsMasker(atlas.volume, standardize=None).fit_transform(str(volume)), lambda: read_recording(volume, atlas).bold),
                                 ('CIFTI, 91k', lambda: nilearn_cifti(dense, atlas), lambda: read_recording(dense, atlas).bold)):
            (t,x),(o,y) = cpu(theirs),cpu(ours)
            assert np.allclose(x[:,:360], y[:,:360], rtol=1e-4), form
            rows.append({'file':form, 'nilearn, ms a frame':f'{t:.1f}', 'brainlm, ms a frame':f'{o:.1f}', 'ratio':f'{t/o:.1f}'})
    table(rows)
    return rows

# learn: how soon test R² at mask 0.75 passes 0.15

def hcp_rest(a):
    "30 real recordings, or None and why not; data are looked for as the notebooks do"
    if (mirror := root.parent/'shared'/'mirror').is_dir(): os.environ.setdefault('BRAINLM_MIRROR', str(mirror))
    from brainlm.datasets import fetch_hcp_rest
    try: return fetch_hcp_rest(a.subjects), None
    except (FileNotFoundError, OSError) as e: return None, str(e).splitlines()[0]

def race(learn, windows, subjects, a, started):
    "Train until the test R² passes `a.goal` or the CPU time is over → a row for each look: step, CPU seconds (looks left out), R²"
    from fastai.callback.core import Callback, CancelFitException

    from brainlm.metrics import evaluate, model_predictor, score
    class Look(Callback):
        def __init__(self): self.log, self.looking = [], 0.
        def look(self):
            start = time.process_time()
            stats = evaluate({'model': model_predictor(self.model)}, windows, subjects, ratios=(0.75,), seed=1)
            self.log.append(dict(step=self.train_iter, cpu_s=start-started-self.looking, r2=float(score(stats).r2.iloc[0])))
            self.looking += time.process_time()-start
            print(f"  step {self.log[-1]['step']}, {self.log[-1]['cpu_s']:.0f} CPU s, R² {self.log[-1]['r2']:.3f}", file=sys.stderr)
            if self.log[-1]['r2']>a.goal: raise CancelFitException()
        def before_train(self):
            if not self.log: self.look()
        def before_batch(self): self.opt.set_hyper('lr', a.lr*min(1, (self.train_iter+1)/20))
        def after_batch(self):
            over = time.process_time()-started-self.looking>60*a.minutes
            if over or self.train_iter%a.every==0: self.look()
            if over: raise CancelFitException()
    look = Look()
    learn.remove_cb(learn.run_folder); learn.add_cb(look)                   # no checkpoints here
    learn.fit(10**6, a.lr)
    return look.log

def learn(a):
    "CPU time until test R² passes `a.goal`, one arrangement after the other"
    import numpy as np
    import torch
    from torch.utils.data import Subset

    from brainlm.atlas import load_parcellation
    from brainlm.model import preset
    from brainlm.pretraining import Training, pretrain_learner
    from brainlm.recordings import RecordingStore
    from brainlm.scaling import RobustScaler
    from brainlm.windows import TiledWindows
    torch.set_num_threads(a.threads)
    recordings, why = hcp_rest(a)
    print(f'## CPU time until test R² at mask 0.75 passes {a.goal}, from scratch, real HCP rest')
    if recordings is None: print(f'\nskipped: {why}\n'); return dict(skipped=why)
    out, rows = {}, []
    with tempfile.TemporaryDirectory(dir=a.dir) as tmp:
        data = RecordingStore.create(f'{tmp}/store', load_parcellation('glasser360')); data.extend(recordings)
        split = data.split(valid=0., test=8/30, seed=1)
        scaler, test = RobustScaler().fit(data, split), np.flatnonzero(split=='test')
        windows = TiledWindows(data, scaler, test)
        chosen = [int(np.flatnonzero(windows.recordings==r)[k%5]) for k,r in enumerate(test)]   # one of each subject, at different places
        for name,kw in {k: arrangements[k] for k in a.arrangements}.items():
            print(f'learn: {name}', file=sys.stderr)
            started = time.process_time()
            learner = pretrain_learner(data, preset(a.preset, n_parcels=data.n_parcels, **kw), f'{tmp}/{name}', split, scaler=scaler,
                training=Training(a.batch_learn, mask_ratios=(0.75,), device='cpu', progress=False))
            log = out[name] = race(learner, Subset(windows, chosen), windows.subjects[chosen], a, started)
            last, passed = log[-1], log[-1]['r2']>a.goal
            rows.append({'arrangement': name, 'parameters': f'{sum(p.numel() for p in learner.model.parameters())/1e6:.2f} M', 'steps': last['step'],
                         f'CPU s until R² > {a.goal}': f"{last['cpu_s']:.0f}" if passed else f'not within the cap of {a.minutes:g} min', 'R² then': f"{last['r2']:.3f}",
                         'CPU s a step': f"{(last['cpu_s']-log[0]['cpu_s'])/last['step']:.2f}" if last['step'] else ''})
    table(rows)
    print(f"Preset {a.preset}, batch {a.batch_learn}, learning rate {a.lr:g} after 20 steps of warm-up, mask 0.75, {(split=='train').sum()} training subjects; R² on {len(chosen)} windows, one of each "
          f"test subject, every {a.every} steps. CPU time of all threads, with building the model and fitting the Gaussian, without reading the data and without the looks at R². "
          "This measures the speed of learning; the test subjects choose nothing.\n")
    return out

arrangements = {'joint, as published': dict(attention='joint', parcel_embedding=False, xyz='linear'), 'joint': dict(attention='joint'), 'axial': dict(attention='axial'),
                'axial + gaussian': dict(attention='axial', prior='gaussian')}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', choices=['step','limits','store','read','learn'], default=['step','limits','store','read','learn'], help='sections')
    p.add_argument('--json', metavar='OUT', help='write the numbers there as well')
    p.add_argument('--threads', type=int, default=2)
    p.add_argument('--dir', help='where temporary folders go')
    g = p.add_argument_group('step')
    g.add_argument('--micro', type=int, nargs='+', default=[1], help='windows at a time; gradients are gathered over the batch')
    g.add_argument('--batch', type=int, default=8); g.add_argument('--steps', type=int, default=3); g.add_argument('--turns', type=int, default=1, help='processes for each case, in turn')
    g.add_argument('--size', default='{}', help='other sizes than the published, as JSON: {"width": 64, ...}')
    g.add_argument('--reference', metavar='DIR', help='checkout of the published code'); g.add_argument('--reference-python', metavar='PY', default=sys.executable)
    g = p.add_argument_group('store')
    g.add_argument('--recordings', type=int, default=77_298); g.add_argument('--ingest', type=int, default=200, help='recordings of 490 x 424 to write')
    g = p.add_argument_group('learn')
    g.add_argument('--minutes', type=float, default=8, help='CPU minutes for each arrangement, at most'); g.add_argument('--goal', type=float, default=0.15); g.add_argument('--every', type=int, default=10, help='steps between looks at R²')
    g.add_argument('--arrangements', nargs='+', choices=list(arrangements), default=list(arrangements)); g.add_argument('--preset', default='tiny'); g.add_argument('--lr', type=float, default=2e-3); g.add_argument('--batch-learn', type=int, default=4); g.add_argument('--subjects', type=int, default=30, help=argparse.SUPPRESS)
    p.add_argument('--worker', help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.worker: print(json.dumps(step_worker(**json.loads(a.worker)))); return
    where = facts(a.threads)
    print(f"Sections: {', '.join(a.only)}. All take at most about 25 minutes on 2 cores; choose with --only. {say(where)}.\n", flush=True)
    results = dict(machine=where, **{s: dict(step=step, limits=limits, store=store, read=read, learn=learn)[s](a) for s in a.only})
    print(f'Load at the end: {os.getloadavg()[0]:.1f}.')
    if a.json: Path(a.json).write_text(json.dumps(results, indent=1)+'\n')

if __name__=='__main__': main()
