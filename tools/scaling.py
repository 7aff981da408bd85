"""What a network adds to its own prior: sizes, people, steps, five cohorts. For a CUDA card and many cores.

    python tools/scaling.py pack                      # where the data are: cohorts, scalers and priors into .gpu
    python tools/scaling.py fill --work W --cores 15  # what the priors guess, once, for every run that follows
    python tools/scaling.py try --work W              # what this machine is fast at, and whether it may be used
    python tools/scaling.py run --work W --until 400  # trainings in order of importance
    python tools/scaling.py card --work W             # the prior on a card beside the CPU
    python tools/scaling.py table --work W            # nbs/results/scaling.tsv
    python tools/scaling.py trial --work W            # all of it at toy size, on a CPU

Every step is kept in the work folder and goes on where it was stopped. A run is scored on people that neither network
nor prior has seen, beside the same prior without the network, on the same hidden samples."""
import argparse
import copy
import gc
import json
import multiprocessing
import os
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import torch
from torch import nn

from brainlm.atlas import load_parcellation
from brainlm.atlases import carried
from brainlm.basics import write_whole
from brainlm.evidence import keep_results, read_kept, result_rows
from brainlm.masking import centred, centring, patchify, random_mask
from brainlm.metrics import (
    GaussianImputer,
    PriorImputer,
    evaluate,
    model_predictor,
    scaled_recordings,
    score,
    sum_columns,
    sum_scores,
    window_mask,
)
from brainlm.model import BrainLM, preset
from brainlm.prior import Context, GaussianPrior, SpaceTimePrior, all_parts, stack_context
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.stats import mean_interval, nan_mean, verdicts
from brainlm.windows import RandomWindows, TiledWindows

root = Path(__file__).resolve().parents[1]
ratios = (.2, .5, .75)
n_test = dict(hcp=8, aal=3, abide=20, psychosis=20, depression=20, pain=0, toy=4)
n_pairs = dict(hcp=12000, aal=2000, abide=3000, psychosis=3000, depression=4000, toy=144)
n_inner = dict(hcp=4000, toy=96)                                            # of the people to choose options with
left_out = dict(                                                            # whom the shipped model may not see
    hcp=['100206', '108020', '126426', '133928', '134021', '164636', '463040', '587664'],
    aal=['102311', '102816', '213522'],
    psychosis=['002', '004', '005', '013', '015', '017', '023', '025', '026', '027', '047', '051'])
at_once = 24                                                                # pairs in a file, of one mask ratio

# Data

def fetched(name):
    "Recordings of a cohort, and its parcellation"
    from brainlm import datasets as d
    if name=='hcp': return d.fetch_hcp_rest(), load_parcellation('glasser360')
    if name=='aal': return d.fetch_hcp_sample(), load_parcellation('aal2')
    got = getattr(d, f"fetch_{name.replace('pain', 'pain_task')}")()
    if name=='abide': return [r for r in got.recordings if r.covariates['site'] in ('PITT', 'OLIN')], got.parcellation
    if name=='psychosis': return [r for r in got.recordings if r.session=='1'], got.parcellation
    return got.recordings, got.parcellation

def made_up(n=14, n_parcels=24, n_time=260):
    "Recordings with waves whose size comes and goes, for a trial"
    rng, p = np.random.default_rng(0), load_parcellation('aal2')
    mix, size = rng.standard_normal((4, n_parcels)), np.exp(rng.standard_normal((n, n_time//20+1, 4)))
    waves = rng.standard_normal((n, n_time, 4)).cumsum(1)*size.repeat(20, 1)[:,:n_time]
    x = waves@mix + 2*rng.standard_normal((n, n_time, n_parcels))
    recordings = [Recording(o.astype('float32'), .72, f'{i:02}', provenance='simulated') for i,o in enumerate(x)]
    return recordings, type(p)('toy', p.table.iloc[:n_parcels])

def ordered(recordings):
    "Controls before patients, by name"
    return sorted(recordings, key=lambda r: (str(r.covariates.get('diagnosis', '')) not in ('', 'control'), r.subject))

def in_half(recordings):
    "Signals [recording, time, parcel] in half precision, without their means; NaN where there is nothing"
    x = np.full((len(recordings), max(len(r.signal) for r in recordings), recordings[0].signal.shape[1]), np.nan)
    for o,r in zip(x, recordings, strict=True): o[:len(r.signal)] = r.signal-r.signal.mean(0)
    return (x/np.nanstd(x, (0, 1))).astype('float16')

def pack(a):
    "Everything that the other machine needs, into a folder"
    a.data.mkdir(parents=True, exist_ok=True)
    for name in a.cohorts:
        if not (a.data/f'{name}.npz').exists():
            recordings, parcellation = made_up() if name=='toy' else fetched(name)
            found = ordered(recordings)
            facts = dict(subject=[f'{name}-{r.subject}' for r in found], n_time=[len(r.signal) for r in found])
            parcellation.save(a.data/f'{name}.tsv')
            kept = dict(facts, x=in_half(found), dt_s=found[0].dt_s)
            write_whole(a.data/f'{name}.npz', lambda part, o=kept: save_arrays(part, o))
        for group in groups_of(name):
            if n_test[name]: fit_prior(a, name, group)
        print(name, 'is packed', flush=True)

def save_arrays(file, arrays):
    "As `np.savez_compressed`, under just this name"
    with open(file, 'wb') as f: np.savez_compressed(f, **arrays)


def store_of(a, name):
    "The store of a packed cohort, made where it is not there"
    folder = a.work/'stores'/name
    if (folder/'done').exists(): return RecordingStore(folder)
    got, parcellation = np.load(a.data/f'{name}.npz'), load_parcellation(a.data/f'{name}.tsv')
    x, who, n = got['x'], got['subject'], got['n_time']
    run = [str(1+int((who[:i]==o).sum())) for i,o in enumerate(who)]
    store = RecordingStore.create(folder, parcellation)
    store.extend([Recording(x[i,:n[i]].astype('float32'), float(got['dt_s']), str(who[i]), run=run[i])
                  for i in range(len(x))])
    (folder/'done').touch()
    return store

def groups_of(name): return ('all', 'inner') if name in n_inner else ('all',)

def sides(name, subjects, group):
    "A word for each recording: 'test' people are seen by nobody, 'watch' people only where options are chosen"
    order = np.random.default_rng(12345).permutation(pd.unique(subjects))
    first = [f'{name}-{s}' for s in left_out.get(name, ())]
    order = np.array([*first, *(s for s in order if s not in first)])
    test = set(order[:n_test[name]])
    watch = set(order[n_test[name]:][:max(2, len(order)//5)]) if group=='inner' else set()
    return np.array(['test' if s in test else 'watch' if s in watch else 'train' for s in subjects])

def people_in_order(words, subjects):
    "The training people; the first n of them are those of a run with n people"
    return pd.unique(subjects[words=='train'])

def fit_prior(a, name, group):
    "Scaler and prior of the training people, where they are not there"
    file = a.data/f'{name}-{group}.safetensors'
    if file.exists(): return
    store = store_of(a, name)
    words = sides(name, store.table['subject'].to_numpy(), group)
    words = np.where(words=='watch', 'valid', words)
    scaler, prior = RobustScaler().fit(store, words), SpaceTimePrior(store.n_parcels)
    chosen = {} if name in ('hcp', 'toy') else dict(n_trials=6)              # HCP: the weights of the recipe
    if not chosen: chosen = dict(choices=None)
    prior.fit(scaled_recordings(store, scaler, words), float(store.table['tr_s'].iloc[0]), **chosen)
    scaler.save(a.data/f'{name}-{group}.json')
    prior.save(file)

# What the prior guesses, once

@dataclass
class Cohort:
    "A cohort as one group of its people sees it"
    name:str
    store:RecordingStore
    words:np.ndarray
    scaler:RobustScaler
    prior:SpaceTimePrior

def cohort_of(a, name, group='all'):
    store = store_of(a, name)
    words = sides(name, store.table['subject'].to_numpy(), group)
    file = a.data/f'{name}-{group}'
    return Cohort(name, store, words, RobustScaler.load(f'{file}.json'), GaussianPrior.load(f'{file}.safetensors'))

def stretch(rng, signal, away):
    "By chance none of a context, a part of up to a third, or all of it"
    n, kind = len(away), rng.integers(3)
    if kind==2 or not n: return signal, away
    long = int(rng.integers(1, n//3+1, endpoint=True)) if kind else 0
    first = int(rng.integers(0, n-long, endpoint=True))
    return signal[:,first:first+long], away[first:first+long]

def training_pairs(c, number):
    "Windows, masks and contexts of a file of pairs, all from its number; [pair, ...] each"
    windows, ratio = RandomWindows(c.store, c.scaler, np.flatnonzero(c.words=='train'), seed=1), ratios[number%3]
    rng, generator = np.random.default_rng([2, number]), torch.Generator().manual_seed(number)
    pairs, beside, rows = [], [], []
    for i in range(number*at_once, (number+1)*at_once):
        epoch, j = divmod(i, len(windows))
        windows.set_epoch(epoch)
        x, valid = windows[j]
        mask = random_mask(valid[None], ratio, generator)[0]
        pairs.append((x, valid, mask, torch.tensor(int(windows.averaged[j]))))
        beside.append(stretch(rng, *windows.others(j)))
        rows.append(int(windows.recordings[j]))
    return *(torch.stack(o) for o in zip(*pairs, strict=True)), stack_context(beside), rows

def scoring_pairs(c, windows, at, ratio):
    "The same of windows to be scored on: masks as of `evaluate`, and all other frames as context"
    x, valid = (torch.stack(o) for o in zip(*(windows[i] for i in at), strict=True))
    mask = torch.stack([window_mask(v, ratio, i) for i,v in zip(at, valid, strict=True)])
    beside = stack_context([windows.others(i) for i in at])
    return x, valid, mask, torch.as_tensor(windows.averaged[list(at)]), beside, windows.recordings[list(at)].tolist()

def guessed(prior, pairs, context, device, gaussian=False, same_run=True):
    "Centred windows, and what a prior makes of them; context of the same run moves with the window"
    x, valid, mask, frames, beside, rows = pairs
    if same_run: beside = beside.shifted(centring(x, mask, frames))
    x = centred(x, mask, frames, valid)
    prior, seen, patches = prior.to(device), (valid & ~mask).to(device), patchify(x.to(device))
    guess = prior.guess(patches, seen, beside.to(device) if context else None)
    found = dict(x=x, valid=valid, mask=mask, row=torch.tensor(rows), guess=guess.cpu())
    if gaussian: found['gaussian'] = GaussianPrior.forward(prior, patches, seen).flatten(2).cpu()
    return found

def halved(found): return {k: v.half() if v.is_floating_point() else v for k,v in found.items()}

def score_files(c, group):
    "Scored windows of a cohort: (side, ratio, context, windows)"
    side = 'watch' if group=='inner' else 'test'
    rows = np.flatnonzero(c.words==side)
    windows = TiledWindows(c.store, c.scaler, rows)
    if c.name not in ('hcp', 'aal'):                                        # one window a person
        first = windows.start==0
        windows.item, windows.start = windows.item[first], windows.start[first]
    parts = [range(i, min(i+8, len(windows))) for i in range(0, len(windows), 8)]
    return windows, [(r, k, p) for r in ratios for k in ('none', 'all') for p in parts]

def jobs_of(a, name, group):
    "Files of guesses of a cohort: (path, function that makes it)"
    folder, made = a.work/'guesses'/f'{name}-{group}', []
    if name=='pain': return [(folder/f'score-{r}.pt', lambda d, r=r: pain_pairs(a, r, d)) for r in ratios]
    c = cohort_of(a, name, group)
    windows, scored = score_files(c, group)
    for k,(r,kind,at) in enumerate(scored):
        def score(device, r=r, kind=kind, at=at):
            found = guessed(c.prior, scoring_pairs(c, windows, at, r), kind=='all', device, True)
            return found | dict(ratio=r, beside=kind, subject=[windows.subjects[i] for i in at])
        made.append((folder/f'score-{k:03}.pt', score))
    n = (n_inner if group=='inner' else n_pairs)[name]*a.share//at_once//3*3
    def train(device, number): return halved(guessed(c.prior, training_pairs(c, number), True, device))
    return made+[(folder/f'{i:04}.pt', lambda d, i=i: train(d, i)) for i in range(int(n))]

def pain_pairs(a, ratio, device):
    "First runs of an unseen atlas, scaled by the person's other runs; four priors, none of other people of that set"
    store, old = store_of(a, 'pain'), cohort_of(a, 'psychosis')
    p = store.parcellation
    moved, alone = carried(old.prior, old.store.parcellation, p), SpaceTimePrior(len(p))
    alone.set(np.zeros(len(p)), .55*np.eye(len(p)))
    alone.dt_s.fill_(float(store.table['tr_s'].iloc[0]))
    alone.group_s.fill_(72.)
    found, subjects = [], store.table['subject'].to_numpy()
    for i,s in enumerate(pd.unique(subjects)):
        first, *others = [store.read(r) for r in np.flatnonzero(subjects==s)]
        if not others: continue
        pairs = one_of_pain(first, others, ratio, i)
        for kind,prior in (('own', alone), ('carried', moved)):
            for runs in (False, True):
                facts = dict(ratio=ratio, beside=kind+' + other runs'*runs, subject=[s])
                found.append(guessed(prior, pairs, runs, device, same_run=False) | facts)
    return found

def one_of_pain(first, others, ratio, index):
    "A person's first run and the others, as of `training_pairs`"
    z = np.concatenate([o-nan_mean(o) for o in others])
    iqr = np.subtract(*np.percentile(np.nan_to_num(z), [75, 25], axis=0))
    gone = ~(iqr>0) | np.isnan(first).any(0)
    scale = lambda x: torch.from_numpy(np.where(gone, 0, x/np.where(gone, 1, iqr)).astype('float32').T)
    n = min(200, len(first)//20*20)
    valid = torch.from_numpy(~gone)[:,None].expand(-1, n//20).clone()
    beside = stack_context([(scale(np.nan_to_num(z)), torch.full((len(z),), 100.))])
    x, mask = scale(first[:n]-first[:n].mean(0)), window_mask(valid, ratio, index)
    return x[None], valid[None], mask[None], torch.tensor([n]), beside, [index]

def claimed(file):
    "Whether this process is the one to make a file"
    file.parent.mkdir(parents=True, exist_ok=True)
    try: os.close(os.open(f'{file}.claim', os.O_CREAT|os.O_EXCL))
    except FileExistsError: return False
    return True

def packed(a, name):
    "Whether all that is needed of a cohort is there"
    needs = [f'{name}.npz']+[f'{name}-{g}.safetensors' for g in groups_of(name) if n_test[name]]
    needs += ['psychosis-all.safetensors', 'psychosis.npz']*(name=='pain')
    return all((a.data/o).exists() for o in needs)

def fill_one(a, number, device='cpu'):
    "One process that makes what no other has begun; those of cohorts that are not packed are left"
    torch.set_num_threads(1)
    n = 0
    for name in a.cohorts:
        if not packed(a, name): continue
        for group in groups_of(name)[::-1]:
            for file,make in jobs_of(a, name, group):
                if time.time()>a.until: return
                if file.exists() or not claimed(file): continue
                found = make(device)
                write_whole(file, lambda part, o=found: torch.save(o, part))
                n += 1
    print(f'process {number} on {device}: {n} files', flush=True)

def fill(a):
    "All guesses, by several processes"
    for name in filter(partial(packed, a), a.cohorts): store_of(a, name)
    for o in (a.work/'guesses').glob('*/*.claim'): o.unlink()               # of processes that were ended
    together(fill_one, [(a, i) for i in range(a.cores)])

def together(function, calls):
    "Several processes, until all of them have ended"
    context = multiprocessing.get_context('spawn')
    several = [context.Process(target=function, args=o) for o in calls]
    for p in several: p.start()
    for p in several: p.join()

def choices(a):
    "What `try` found out about this machine"
    file = a.work/'choices.json'
    return json.loads(file.read_text()) if file.exists() else dict(bf16=False, graphs=False)

# Training on what is kept

class Given(nn.Module):
    "In the place of a prior: what it has guessed before"
    def forward(self, patches, visible): return self.now

class Pool:
    "Pairs of a cohort on the device of the training, one list for each mask ratio"
    def __init__(self, a, name, group, device):
        files = sorted(o for o in (a.work/'guesses'/f'{name}-{group}').glob('[0-9]*.pt'))
        parts = [(int(f.stem), torch.load(f, weights_only=True)) for f in files]
        c = cohort_of(a, name, group)
        self.name, self.parcellation, self.device = name, c.store.parcellation, device
        self.people = people_in_order(c.words, c.store.table['subject'].to_numpy())
        self.subject = c.store.table['subject'].to_numpy()[torch.cat([o['row'] for _,o in parts]).numpy()]
        self.ratio = np.repeat([k%3 for k,_ in parts], [len(o['row']) for _,o in parts])
        self.x, self.guess, self.valid, self.mask = (
            torch.cat([o[k] for _,o in parts]).to(device) for k in ('x', 'guess', 'valid', 'mask'))
        self.complete = bool(self.valid.all())
        self.error = [self.prior_error(np.flatnonzero(self.ratio==k)[:200]) for k in range(3)]

    def prior_error(self, at):
        "Mean squared error of the prior where it guesses"
        at = torch.as_tensor(at, device=self.device)
        hidden = self.mask[at][...,None]
        e = patchify(self.x[at].float()-self.guess[at].float()).square()
        return float((e*hidden).sum()/(hidden.sum()*e.shape[-1]))

    def of(self, people, most):
        "Numbers of the pairs of the first so many people, a list for each ratio, so many pairs at most"
        ok = np.isin(self.subject, self.people[:people or None])
        return [np.flatnonzero(ok & (self.ratio==k))[:(most or 10**9)//3] for k in range(3)]

def at_prior(model, x, guess, mask, valid=None, ratio=None):
    "A model on windows whose guesses are known; with the share that `mask` hides nothing need be counted"
    if model.prior is not None: model.prior.now = patchify(guess.float())
    if ratio is None: return model(x.float(), valid=valid, mask=mask)
    model._mask = lambda *_: (mask, ratio)                                  # a number asked of the card stops a graph
    try: return model(x.float(), valid=valid)
    finally: del model._mask

@dataclass
class Run:
    "A training"
    kind:str='hcp' # cohort, or 'five'
    preset:str='tiny'
    steps:int=3000
    people:int=0 # 0: all
    pairs:int=0 # 0: all
    seed:int=0
    group:str='all' # 'inner': options are chosen among training people
    xyz:str='linear'
    place:str='xyz'
    wires:str=''
    parcels:bool=False
    prior:str='space-time'
    lr:float=0. # 0: by size
    decay:float=.05 # of weights
    flip:bool=False # turn the sign of every second pair, of which the prior would have guessed the same turned
    batch:int=16
    drop:float=0. # of what is between the two layers of each MLP
    best:bool=False # with the options that did best among the people for choosing, of those tried by then

    @property
    def name(self):
        other = {k: v for k,v in asdict(self).items() if v!=getattr(Run, k)}
        return '-'.join([self.kind, self.preset]+[f'{k}{v}' for k,v in other.items() if k not in ('kind', 'preset')])

rates = dict(nano=3e-3, tiny=2e-3, small=1e-3, **{'13m': 5e-4})
shares = dict(hcp=.4, psychosis=.2, abide=.15, depression=.15, aal=.1)     # of the batches of a network on all five
toy_size = dict(width=16, layers=2, heads=2, mlp=32)
toy_size |= {f'decoder_{k}': v for k,v in toy_size.items()}

def network(run, pools):
    "The network of a run, on each cohort"
    first, size = next(iter(pools.values())), toy_size if 'toy' in pools else {}
    config = preset(run.preset, n_parcels=len(first.parcellation), prior=run.prior, xyz=run.xyz,
                    place=run.place, wires=run.wires, parcel_embedding=run.parcels, **size)
    torch.manual_seed(run.seed)
    model = BrainLM(config, first.parcellation)
    if model.prior is not None: model.prior = Given()
    for block in (*model.encoder, *model.decoder) if run.drop else ():
        block.mlp[1] = nn.Sequential(nn.GELU(), nn.Dropout(run.drop))
    return model.to(first.device)

def coats(model, parcellations):
    "The same network on other atlases"
    if len(parcellations)==1: return dict.fromkeys(parcellations, model)
    given = None if model.prior is None else Given()
    return {k: model.on(p, None, given).to(model.cls.device) for k,p in parcellations.items()}

def optimiser(model, decay):
    "AdamW of the house's recipe; its rate is a number on the device"
    cuda, rate = model.cls.is_cuda, torch.tensor(0., device=model.cls.device)
    flat = [p for p in model.parameters() if p.ndim<2]
    deep = [p for p in model.parameters() if p.ndim>1]
    kinds = [dict(params=deep, weight_decay=decay), dict(params=flat, weight_decay=0.)]
    return torch.optim.AdamW(kinds, rate, betas=(.9, .95), eps=1e-8, fused=cuda, capturable=cuda)

def one_cycle(rate, steps):
    "The rate of each step"
    o = torch.optim.SGD([nn.Parameter(torch.zeros(1))], rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR(o, rate, total_steps=steps+1, pct_start=.15, cycle_momentum=False)
    found = []
    for _ in range(steps):
        found.append(cycle.get_last_lr()[0])
        o.step()
        cycle.step()
    return torch.tensor(found)

def endless(rng, listed, n):
    "n of the listed numbers: all of them before one comes again"
    rounds = -(-n//len(listed))
    return np.concatenate([rng.permutation(listed) for _ in range(rounds)] or [listed])[:n]

def drawn(run, pools):
    "Of each step its pool, the number of its ratio and those of its pairs [step, batch]; and how many pairs there are"
    rng, lists = np.random.default_rng(run.seed), {k: p.of(run.people, run.pairs) for k,p in pools.items()}
    share = np.array([shares.get(k, 1.) for k in pools])
    turns = rng.choice(list(pools), run.steps, p=share/share.sum())
    which, at = [(str(k), i%3) for i,k in enumerate(turns)], np.zeros((run.steps, run.batch), int)
    for k,r in sorted(set(which)):
        mine = [o==(k, r) for o in which]
        at[mine] = endless(rng, lists[k][r], sum(mine)*run.batch).reshape(-1, run.batch)
    return which, torch.from_numpy(at), sum(len(o) for k in lists.values() for o in k)

class Steps:
    """A training. Windows and rate of a step are looked up by its number on the device, so that on a card a step of
    each pool and ratio can be recorded once, as a CUDA graph, and be played from then on"""
    lane = None # stream of its own, where several trainings share a card
    def __init__(self, run, pools, bf16=False):
        self.run, self.pools, self.model = run, pools, network(run, pools)
        self.models = coats(self.model, {k: p.parcellation for k,p in pools.items()})
        self.device, self.played = self.model.cls.device, {}
        self.which, self.at, self.n_pairs = drawn(run, pools)
        self.rate = one_cycle(run.lr or rates[run.preset], run.steps)
        self.now, self.sign = torch.zeros(1, dtype=torch.long), torch.ones(run.batch, 1, 1)
        self.sign[::2] -= 2*run.flip
        for k in ('at', 'rate', 'now', 'sign'): setattr(self, k, getattr(self, k).to(self.device))
        self.parameters, self.o = [*self.model.parameters()], optimiser(self.model, run.decay)
        for p in self.parameters: p.grad = torch.zeros_like(p)
        how = partial(torch.autocast, self.device.type, torch.bfloat16, cache_enabled=False)
        self.auto = how if bf16 else nullcontext

    def step(self, k, r):
        "One step with a pool and a ratio: nothing in it waits for the device"
        p, at = self.pools[k], self.at.index_select(0, self.now)[0]
        x, guess, mask, valid = (o.index_select(0, at) for o in (p.x, p.guess, p.mask, p.valid))
        if self.run.flip: x, guess = x*self.sign, guess*self.sign
        torch._foreach_zero_([o.grad for o in self.parameters])
        with self.auto(): found = at_prior(self.models[k], x, guess, mask, None if p.complete else valid, ratios[r])
        (found.loss/p.error[r]).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.)
        for group in self.o.param_groups: group['lr'].copy_(self.rate.index_select(0, self.now)[0])
        self.o.step()
        self.now += 1

    def recorded(self, k, r, memory):
        "The graph of `step`, after two that prepare it"
        first = self.which.index((k, r))
        stream, graph = self.lane or torch.cuda.Stream(), torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.now.fill_(first)
                self.step(k, r)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph, pool=memory, stream=self.lane): self.step(k, r)
        return graph

    def record(self):
        "Graphs of all kinds of steps, and the weights as they were; none where something of it fails"
        first = [p.detach().clone() for p in self.parameters]
        try:
            memory = torch.cuda.graph_pool_handle()
            self.played = {o: self.recorded(*o, memory) for o in sorted(set(self.which))}
        except Exception as e:
            print(f'{self.run.name}: no graphs, {type(e).__name__}: {e}'[:600], flush=True)
            self.played = {}
        if self.device.type=='cuda': torch.cuda.synchronize()
        with torch.no_grad():
            for p,o in zip(self.parameters, first, strict=True): p.copy_(o)
        for state in self.o.state.values():
            for o in state.values(): o.zero_()
        self.now.zero_()

    def go(self, until=float('inf')):
        "All steps; seconds of each, None where there is no time for all"
        wait = torch.cuda.synchronize if self.device.type=='cuda' else (lambda: None)
        start = time.time()
        for i,o in enumerate(self.which):
            if o in self.played: self.played[o].replay()
            else: self.step(*o)
            if i!=40: continue
            wait()
            if start+(time.time()-start)/40*self.run.steps*.9>until: return
        wait()
        return (time.time()-start)/self.run.steps

def trained(run, pools, until=float('inf'), bf16=False, graphs=True):
    "The network after its steps, seconds a step and pairs; None where there is no time for all of them"
    torch.set_float32_matmul_precision('high')                              # TF32, on a card, in training alone
    torch.backends.cuda.enable_cudnn_sdp(False)                             # it failed on many short sequences
    try:
        all_steps = Steps(run, pools, bf16)
        if graphs and all_steps.device.type=='cuda': all_steps.record()
        seconds = all_steps.go(until)
    finally: torch.set_float32_matmul_precision('highest')
    all_steps.o.zero_grad()
    return None if seconds is None else (all_steps.model, seconds, all_steps.n_pairs)

# Scores

def sums_of(truth, found, mask):
    "The seven sums of each window [window, 7], over its hidden samples"
    m = mask[...,None].double()
    y, p = truth.double(), found.double()
    each = [m.expand_as(y), y, p, y*y, p*p, y*p, (p-y)**2]
    return torch.stack([(o*m).sum((1, 2, 3)) for o in each], -1).cpu().numpy()

@torch.no_grad()
def scored(model, parts):
    "R² of each person, mask ratio and context of a model beside its prior and the group's Gaussian"
    rows, model = [], model.eval()
    for o in parts:
        o = {k: v.to(model.cls.device) if torch.is_tensor(v) else v for k,v in o.items()}
        truth = patchify(o['x'].float())
        valid = None if o['valid'].all() else o['valid']
        found = at_prior(model, o['x'], o['guess'], o['mask'], valid).prediction
        said = dict(network=found, prior=patchify(o['guess'].float()))
        if 'gaussian' in o: said['gaussian'] = patchify(o['gaussian'].float())
        for k,v in said.items():
            for s,sums in zip(o['subject'], sums_of(truth, v, o['mask']), strict=True):
                rows.append((s, o['ratio'], o['beside'], k, *sums))
    keys = ['subject', 'ratio', 'beside', 'who']
    t = pd.DataFrame(rows, columns=keys+sum_columns).groupby(keys, sort=False)[sum_columns].sum()
    return pd.Series(sum_scores(t.values)['r2'], t.index).unstack().add_prefix('r2_').reset_index()

def score_parts(a, name, group):
    "The kept windows of a cohort that are scored on"
    found = [torch.load(f, weights_only=False) for f in sorted((a.work/'guesses'/f'{name}-{group}').glob('score*.pt'))]
    return [o for f in found for o in (f if isinstance(f, list) else [f])]

def scores_of(a, run, model, names):
    "Scores of a trained network on every cohort it is meant for"
    if run.kind=='five': names = [*names, 'pain']
    on = {k: load_parcellation(a.data/f'{k}.tsv') for k in names}
    tables = []
    for k,m in coats(model, on).items():
        if parts := score_parts(a, k, run.group): tables.append(scored(m, parts).assign(cohort=k))
    return pd.concat(tables)

def one_run(a, run, pools, until):
    "Train, score, keep the rows; whether there was time"
    names = list(shares) if run.kind=='five' else [run.kind]
    for k in names:
        if (k, run.group) not in pools: pools[k, run.group] = Pool(a, k, run.group, a.device)
    mine = {k: pools[k, run.group] for k in names}
    if run.best: run, name = with_best(a, run), run.name
    else: name = run.name
    if (got := trained(run, mine, until, a.bf16, a.graphs)) is None: return False
    model, seconds, pairs = got
    facts = asdict(run) | dict(run=name, seconds=seconds, n_pairs=pairs, bf16=a.bf16)
    facts['parameters'] = sum(p.numel() for p in model.parameters())
    t = scores_of(a, run, model, names).assign(**facts)
    write_whole(a.work/'runs'/f'{name}.tsv', t.to_csv(sep='\t', index=False, float_format='%.7g'))
    keep_weights(a.work/'runs'/f'{name}.pt', model, facts)
    gain = (t['r2_network']-t['r2_prior']).groupby([t['cohort'], t['beside'], t['ratio']]).mean()
    print(f'{name}: {seconds*1e3:.1f} ms a step, {pairs} pairs', *[f'{v:+.4f}' for v in gain], flush=True)
    return True

def keep_weights(file, model, facts):
    "Weights in half precision where they are few"
    few = {k: v.detach().half().cpu() for k,v in model.named_parameters()}
    if facts['parameters']<3e6: write_whole(file, lambda part: torch.save(few, part))

class Several:
    "The mean of what several networks say"
    def __init__(self, models):
        self.models, self.cls, self.prior = models, models[0].cls, models[0].prior
        for m in models: m.prior = self.prior
    def eval(self): return self
    def __call__(self, x, **how):
        found = [m.eval()(x, **how).prediction for m in self.models]
        return SimpleNamespace(prediction=torch.stack(found).mean(0))

def mean_of_seeds(a):
    "Rows of the mean of the networks of the first plan that differ by their seeds"
    kind, steps = a.cohorts[0], 8 if a.cohorts[0]=='toy' else Run.steps
    runs = [r for r in (Run(kind, steps=steps, seed=i) for i in range(6)) if (a.work/'runs'/f'{r.name}.pt').exists()]
    if len(runs)<2: return
    c, models = cohort_of(a, a.cohorts[0]), []
    pool = SimpleNamespace(parcellation=c.store.parcellation, device=a.device)
    for r in runs:
        models.append(network(r, {r.kind: pool}))
        models[-1].load_state_dict(torch.load(a.work/'runs'/f'{r.name}.pt', weights_only=True), strict=False)
    t = scored(Several(models), score_parts(a, c.name, 'all')).assign(cohort=c.name, **asdict(runs[0]))
    t = t.assign(run=f'{runs[0].name}-mean{len(runs)}', seed=-len(runs))
    write_whole(a.work/'runs'/f'{runs[0].kind}-mean.tsv', t.to_csv(sep='\t', index=False, float_format='%.7g'))

# What is run

def choosing(kind='hcp'):
    "Trainings of about as much work as each other, on people for choosing; the first is as usual"
    usual = Run(kind, group='inner', steps=8 if kind=='toy' else 4000)
    larger = dict(steps=usual.steps//4, batch=64, lr=3e-3)
    return [usual, *(replace(usual, **o) for o in (dict(decay=.5), dict(drop=.1), larger))]

def with_best(a, run):
    "A training with the options that did best so far among `choosing`; as usual unless by more than .0001"
    gain = {}
    for o in choosing(run.kind):
        if (file := a.work/'runs'/f'{o.name}.tsv').exists():
            t = pd.read_csv(file, sep='\t')
            gain[o.name] = (t['r2_network']-t['r2_prior']).mean(), o
    usual, best = gain.get(choosing(run.kind)[0].name), max(gain.values(), key=lambda v: v[0], default=None)
    print('chosen among', {k: f'{v:+.5f}' for k,(v,_) in gain.items()}, flush=True)
    if usual is None or best[0]<usual[0]+1e-4: return run
    o = best[1]
    return replace(run, decay=o.decay, drop=o.drop, batch=o.batch, lr=o.lr, steps=run.steps*usual[1].batch//o.batch)

def plan():
    "All trainings, the important ones first; what is not ready yet is passed over"
    main = [Run('five', steps=5000), Run(steps=10000, best=True), Run(seed=1), Run(seed=2), Run(prior='none')]
    main += [Run(preset='small', steps=2500), Run(people=4), Run(people=8), Run(preset='13m', steps=1500)]
    inner = [Run(group='inner', steps=2000, xyz=x, parcels=p) for x in ('linear', 'fourier') for p in (False, True)]
    inner += [Run(group='inner', steps=2000, flip=True)]
    first = [Run(), Run(preset='nano'), Run(preset='nano', people=8), Run(preset='nano', people=4)]
    longer = [Run(steps=n) for n in (300, 1000)]+[Run(steps=10000), Run(pairs=2160)]
    large = [Run(preset='small', steps=2500, people=n) for n in (8, 4)]
    alone = [Run(k, steps=2000) for k in ('depression', 'abide', 'psychosis', 'aal')]
    last = [Run('five', preset='small', steps=4000), Run(steps=30000)]
    return [*main, *choosing(), *inner, *first, *longer, *large, *alone, *last]

def whole(a, run):
    "Whether all guesses that a training needs are there, or will not come any more"
    for k in shares if run.kind=='five' else [run.kind]:
        if not packed(a, k): return False
        n = int((n_inner if run.group=='inner' else n_pairs)[k]*a.share//at_once//3*3)
        there = len(list((a.work/'guesses'/f'{k}-{run.group}').glob('[0-9]*.pt')))
        if there<n*(.98 if time.time()<a.begun+a.patience else .3): return False
    return True

def known_runs(a):
    "Names of the trainings of which there are rows already"
    if a.known is None: return set()
    return set(pd.read_csv(a.known, sep='\t', usecols=['run'])['run'])

def run_some(a, number):
    "One process that trains what no other has begun and for which there is time"
    torch.set_num_threads(1)
    pools, tried = {}, known_runs(a)
    while time.time()<a.until:
        done = lambda r: (a.work/'runs'/f'{r.name}.tsv').exists() or (a.work/'runs'/f'{r.name}.claim').exists()
        left = [r for r in a.runs if r.name not in tried and not done(r)]
        if not left: return
        ready = next((r for r in left if whole(a, r)), None)
        if ready is None: time.sleep(1)
        elif claimed(a.work/'runs'/ready.name):
            tried.add(ready.name)
            try:
                if not one_run(a, ready, pools, a.until): (a.work/'runs'/f'{ready.name}.claim').unlink()
            except Exception as e: print(f'{ready.name}: {type(e).__name__}: {e}'[:800], flush=True)
            keep_rows(a)
            gc.collect()
            if a.device=='cuda': torch.cuda.empty_cache()

def keep_rows(a):
    "The rows of all trainings that are there in one file; how many these are"
    rows = [pd.read_csv(f, sep='\t') for f in sorted((a.work/'runs').glob('*.tsv'))]
    if rows: write_whole(a.rows, pd.concat(rows).to_csv(sep='\t', index=False, float_format='%.7g'))
    return len(rows)

def run(a):
    "The trainings of the plan that are not there, several at a time; then all rows in one file"
    for o in (a.work/'runs').glob('*.claim'): o.unlink()                    # of processes that were ended
    a.bf16, a.graphs = (choices(a)[k] for k in ('bf16', 'graphs'))
    a.runs = [r for r in a.runs if a.only in (None, r.group)]
    run_some(a, 0) if a.workers==1 else together(run_some, [(a, i) for i in range(a.workers)])
    if a.only is None: mean_of_seeds(a)
    print(f'{keep_rows(a)} of {len(a.runs)} trainings are there, {time.time()-a.begun:.0f} s')

# The table

words = dict(hcp='HCP rest, 360 areas', aal='HCP rest, 94 regions', abide='ABIDE, 116 regions', toy='made up',
    psychosis='first episode of psychosis, 419 parcels', depression='depression, 164 regions',
    pain='heat pain, 122 regions, never seen')
besides = {'none': '', 'all': ', with context', 'own': ', window alone', 'own + other runs': ', own other runs',
    'carried': ', prior carried over', 'carried + other runs': ', prior carried over, own other runs'}

def model_words(o, people):
    "A training in words; the last part only says what is not as usual"
    size = f'{o.preset}, five cohorts' if o.kind=='five' else f'{o.preset}, {o.people or people} people'
    other = {', signs turned': o.flip, ', no prior': o.prior=='none', ', parcel vectors': o.parcels,
             f', xyz {o.xyz}': o.xyz!='linear', f', decay {o.decay:g}': o.decay!=.05, f', rate {o.lr:g}': o.lr>0,
             f', {o.drop:.0%} dropped': o.drop>0, f', {o.batch} at once': o.batch!=16, f', seed {o.seed}': o.seed>0,
             f', mean of {-o.seed} networks': o.seed<0, f', {o.pairs} pairs': o.pairs>0}
    return f'{size}, {o.steps} steps'+''.join(k for k,v in other.items() if v)

def compared(t, name, mask, data):
    "Rows of one training on one cohort for a mask: each context beside the same prior, one family"
    rows, pairs = [], {}
    for k,g in t.groupby('beside', sort=False):
        people = g.groupby('subject')[[c for c in t if c.startswith('r2_')]].mean().dropna(axis=1)
        pairs[k] = people
    found = verdicts({k: (p['r2_network']-p['r2_prior']).to_numpy() for k,p in pairs.items()}, name, 'R²')
    for v,(k,p) in zip(found, pairs.items(), strict=True):
        p = p.rename(columns=dict(r2_network=name, r2_prior='same prior', r2_gaussian='gaussian'))
        values = {m: (o.mean(), *mean_interval(o.to_numpy()), len(o)) for m,o in p.items()}
        values = pd.DataFrame(values, ['value', 'low', 'high', 'n']).T
        facts = dict(task=f'fill in{besides[k]}, {mask}', data=data, metric='R²')
        kind = 'simulated' if data==words['toy'] else 'real'
        rows.append(result_rows(values, [replace(v, rival='same prior')], [name], kind=kind, **facts))
    return rows

def of_training(t, people):
    "Rows of one training: the mean over masks, and each mask where it learned from five cohorts or is the first plan"
    o, rows = SimpleNamespace(**t.iloc[0]), []
    named = Run().name, Run(prior='none').name, Run(steps=10000, best=True).name, Run(preset='small', steps=2500).name
    named = Run().name, Run(prior='none').name, Run(steps=10000, best=True).name, Run(preset='small', steps=2500).name
    detailed = o.kind=='five' or o.run in named
    for k,g in t.groupby('cohort', sort=False):
        data = words[k]+', inner people'*(o.group=='inner')
        name = model_words(o, people.get((k, o.group), ''))
        rows += compared(g, name, 'mean of three masks', data)
        for r,m in g.groupby('ratio') if detailed else (): rows += compared(m, name, f'{r:.0%} hidden', data)
    return rows

def table(a):
    "Rows of all trainings, in a file that is made anew"
    t = pd.read_csv(a.rows, sep='\t', keep_default_na=False, na_values={'r2_gaussian': ''})
    known = dict(hcp=22, aal=4, abide=70, psychosis=35, depression=174, toy=10)
    t = t.fillna({'drop': 0., 'batch': 16})
    people = {(k, 'all'): n for k,n in known.items()} | {('hcp', 'inner'): 16, ('toy', 'inner'): 8}
    a.out.unlink(missing_ok=True)
    rows = [r for _,g in t.groupby('run', sort=False) for r in of_training(g, people)]
    seeds = t[t['run'].isin([Run(seed=i).name for i in range(3)])]
    if seeds['run'].nunique()==3:
        name = model_words(Run(), 22)+', mean of 3 seeds'
        both = seeds.groupby(['subject', 'beside', 'ratio'], sort=False)[['r2_network', 'r2_prior']].mean()
        rows += compared(both.reset_index(), name, 'mean of three masks', words['hcp'])
    keep_results(a.out, pd.concat(rows), 'python tools/scaling.py')
    print(read_kept(a.out).query("rival!=''")[['task', 'data', 'model', 'difference', 'says', 'n']].to_string())

# Before the long call

def seconds_of(f, device, n=3):
    "Least seconds of several calls"
    found = []
    for _ in range(n):
        if device=='cuda': torch.cuda.synchronize()
        start = time.time()
        f()
        if device=='cuda': torch.cuda.synchronize()
        found.append(time.time()-start)
    return min(found)

def try_steps(a, pool, steps):
    "Milliseconds a step of each size, taken as it is, as a graph, and as a graph in bfloat16"
    for size in ('tiny',) if pool.name=='toy' else rates:
        for graphs,bf16 in ((False, False), (True, False), (True, True)):
            if not graphs and size!='tiny': continue
            try: _, s, _ = trained(Run(pool.name, size, steps=steps), {pool.name: pool}, bf16=bf16, graphs=graphs)
            except Exception as e: s = f'{type(e).__name__}: {e}'[:300]
            words = f"{size}, {'graph' if graphs else 'as it is'}, {'bfloat16' if bf16 else 'float32'}"
            print(words, s if isinstance(s, str) else f'{s*1e3:.1f} ms a step of 16 windows', flush=True)

def attempt(a):
    "Time everything once on this machine, and decide what the long call does by what was found"
    name = a.cohorts[0]
    while not (a.work/'stores'/name/'done').exists() and time.time()<a.until-40: time.sleep(.2)    # `fill` makes it
    kept = choices(a)
    wanted = len(jobs_of(a, name, 'inner'))//(1 if name=='toy' else 3)
    while len(list((a.work/'guesses'/f'{name}-inner').glob('*.pt')))<wanted and time.time()<a.until-30: time.sleep(.5)
    pool, gain, steps = Pool(a, name, 'inner', a.device), {}, 3 if name=='toy' else 201
    for graphs,bf16 in ((False, False), (True, False), (True, True)):
        try:
            model, s, n = trained(Run(name, steps=steps), {name: pool}, bf16=bf16, graphs=graphs)
            t = scored(model, score_parts(a, name, 'inner'))
            gain[graphs,bf16] = float((t['r2_network']-t['r2_prior']).mean()), s
            found = f'{gain[graphs,bf16][0]:+.5f}, {s*1e3:.1f} ms a step'
        except Exception as e: found, n = f'{type(e).__name__}: {e}'[:500], 0
        print(f'{n} pairs, {steps} steps, graph {graphs}, bfloat16 {bf16}: {found}', flush=True)
        kept = decided(gain)
        write_whole(a.work/'choices.json', kept)
    try_steps(a, pool, 2 if name=='toy' else 30)
    print('decided:', kept, flush=True)

def decided(gain):
    "Graphs where they are faster and come to the same gain; bfloat16 where that is faster still and no worse"
    plain, graph, half = (gain.get(o) for o in ((False, False), (True, False), (True, True)))
    graphs = bool(plain and graph and abs(graph[0]-plain[0])<2e-4 and graph[1]<plain[1])
    return dict(graphs=graphs, bf16=bool(graphs and half and half[0]>graph[0]-2e-4 and half[1]<.9*graph[1]))

# The prior on a card

def distance(found, right): return f'{(found.double().cpu()-right).abs().max():.6f}'

def guesses_of(prior, pairs, device, dtype, **how):
    "What the prior of a device and precision makes of pairs, in double precision on the CPU"
    x, valid, mask, frames, beside, _ = pairs
    beside = beside.shifted(centring(x, mask, frames))
    patches = patchify(centred(x, mask, frames, valid)).to(device, dtype)
    there, beside = (valid & ~mask).to(device), Context(*(o.to(device, dtype) for o in beside))
    return copy.deepcopy(prior).to(device, dtype).guess(patches, there, beside, **how).double().cpu()

def card(a):
    "How far the prior on a card is from the CPU, part by part, and what takes its time"
    name = a.cohorts[0]
    while not (a.work/'stores'/name/'done').exists() and time.time()<a.until: time.sleep(.2)
    c, n = cohort_of(a, name), 6
    x, valid, mask, frames, beside, rows = training_pairs(c, 0)
    pairs = x[:n], valid[:n], mask[:n], frames[:n], beside.rows(slice(n)), rows[:n]
    print('TF32 in matrix products:', torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision(),
          {k: v for k,v in os.environ.items() if 'TF32' in k}, flush=True)
    for parts in (('window',), ('context', 'window'), all_parts):
        for tolerance,steps in ((.01, 60), (1e-5, 300))[:1+('time' in parts)]:
            how = dict(parts=parts, tolerance=tolerance, steps=steps)
            right = guesses_of(c.prior, pairs, 'cpu', torch.float64, **how)
            cases = [('cpu', torch.float32)]+[(a.device, o) for o in (torch.float64, torch.float32)]
            found = {f'{d} {str(t)[6:]}': distance(guesses_of(c.prior, pairs, d, t, **how), right) for d,t in cases}
            if a.device=='cuda':
                torch.backends.cuda.matmul.allow_tf32 = True
                found['cuda TF32'] = distance(guesses_of(c.prior, pairs, 'cuda', torch.float32, **how), right)
                torch.backends.cuda.matmul.allow_tf32 = False
            print(f'{"+".join(parts)}, tolerance {tolerance}: largest distance from double precision on the CPU', found,
                  flush=True)
    card_parts(a, c, (x, valid, mask, frames, beside, rows))

def card_parts(a, c, pairs):
    "Seconds of the parts of a guess, and windows a second"
    x, valid, mask, frames, beside, rows = pairs
    n, device = len(c.prior.mean), a.device
    m = c.prior.cov.to(device).expand(len(x), -1, -1).contiguous()
    part = m[:,None,:n//2,:n//2].expand(-1, 10, -1, -1).contiguous()
    eye = torch.eye(n//2, device=device)
    def by_triangles():
        low = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(part)[0], eye, upper=False)
        return low.mT@low
    jobs = {f'eigh of {len(m)}': lambda: torch.linalg.eigh(m), f'cholesky of {len(m)*10} halves':
            lambda: torch.linalg.cholesky_ex(part), 'their inverses': lambda: _inverted_as_now(part),
            'their inverses by triangles': by_triangles}
    for k,f in jobs.items(): print(f'{k}: {seconds_of(f, device, 2)*1e3:.1f} ms', flush=True)
    right, low = _inverted_as_now(part.double()), _inverted_as_now(part)
    print('inverses off by', distance(low, right.cpu()), 'by triangles', distance(by_triangles(), right.cpu()))
    lam, u = torch.linalg.eigh(m)
    print('eigh off by', distance((u*lam[...,None,:])@u.mT, m.double().cpu()), flush=True)
    prior = copy.deepcopy(c.prior).to(device)
    see, patches = (valid & ~mask).to(device), patchify(x).to(device)
    for parts in (('window',), ('context', 'window'), all_parts):
        s = seconds_of(lambda o=parts: prior.guess(patches, see, beside.to(device), parts=o), device, 2)
        print(f'{"+".join(parts)}: {len(x)/s:.0f} windows a second on {device}', flush=True)
    more = [torch.cat([o]*4) for o in (patches, see, *beside.to(device))]
    s = seconds_of(lambda: prior.guess(*more[:2], Context(*more[2:])), device, 2)
    print(f'four times as many at once: {4*len(x)/s:.0f} windows a second', flush=True)

def _inverted_as_now(m): return torch.cholesky_inverse(torch.linalg.cholesky_ex(m)[0])

def trial(a):
    "All of it at toy size; kept guesses are those that a live prior makes"
    a.data, a.cohorts, a.cores, a.workers = a.work/'data', ['toy'], 1, 1
    pack(a)
    fill_one(a, 0)
    attempt(a)
    card(a)
    tried = [Run('toy', steps=10, flip=True), Run('toy', steps=10, people=4, prior='none')]
    a.runs = [*choosing('toy'), *tried, Run('toy', steps=9, best=True), Run('toy', steps=8), Run('toy', steps=8, seed=1)]
    a.bf16 = a.graphs = False
    run_some(a, 0)
    mean_of_seeds(a)
    keep_rows(a)
    a.out = a.work/'scaling.tsv'
    table(a)
    live_again(a)

def live_again(a):
    "AssertionError unless kept guesses and kept scores are those of a model whose prior guesses anew"
    c, kept = cohort_of(a, 'toy'), torch.load(a.work/'guesses'/'toy-all'/'0001.pt', weights_only=True)
    fresh = guessed(c.prior, training_pairs(c, 1), True, 'cpu')
    assert torch.equal(kept['guess'], fresh['guess'].half()) and torch.equal(kept['mask'], fresh['mask'])
    masks = kept['mask'].flatten(1)
    assert len(torch.unique(masks, dim=0))==len(masks)
    pool = Pool(a, 'toy', 'all', 'cpu')
    steps = Steps(Run('toy', steps=2), {'toy': pool})
    before = [p.detach().clone() for p in steps.parameters]
    if a.device=='cpu': steps.record()                                      # there is no card: it says so and changes nothing
    assert not steps.played and all(map(torch.equal, before, steps.parameters)) and steps.now.item()==0
    model, *_ = trained(Run('toy', steps=10), {'toy': pool})
    mine = scored(model, score_parts(a, 'toy', 'all')).set_index(['subject', 'ratio', 'beside'])
    live = model.on(c.store.parcellation, c.scaler, c.prior)
    windows, _ = score_files(c, 'all')
    for kind,beside in (('none', None), ('all', 'recording')):
        those = dict(network=model_predictor(live, beside), prior=PriorImputer(c.prior, all_parts[beside is None:]),
                     gaussian=GaussianImputer(c.prior))
        t = score(evaluate(those, windows, ratios=ratios), ['subject', 'mask_ratio', 'model'])['r2'].unstack()
        at = mine.xs(kind, level='beside')[[f'r2_{k}' for k in those]]
        apart = abs(at.to_numpy()-t.loc[at.index, [*those]].to_numpy()).max()
        assert apart<1e-4, f'{kind}: found scores {apart:.2g} apart, expected the same'
    print('kept guesses and scores are those of a live prior')

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'fill', 'try', 'run', 'card', 'table', 'trial'])
    p.add_argument('--work', type=Path, default=root/'runs'/'scaling', help='folder of guesses and trainings')
    p.add_argument('--data', type=Path, default=root/'.gpu', help='folder of the packed cohorts')
    p.add_argument('--rows', type=Path, default=None, help='a row a person and training')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'scaling.tsv', help='the table of results')
    p.add_argument('--cohorts', nargs='+', default=['hcp', 'aal', 'abide', 'depression', 'pain', 'psychosis'])
    p.add_argument('--cores', type=int, default=max(1, (os.cpu_count() or 1)-3), help='processes that guess')
    p.add_argument('--workers', type=int, default=1, help='processes that train')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--patience', type=float, default=150, help='seconds to wait for all guesses before some will do')
    p.add_argument('--known', type=Path, default=None, help='rows of trainings that are not done again')
    p.add_argument('--only', choices=['all', 'inner'], default=None, help='of the trainings, those of this group')
    p.add_argument('--share', type=float, default=1., help='of the pairs that are made otherwise')
    a = p.parse_args(argv)
    a.begun, a.device, a.runs = time.time(), 'cuda' if torch.cuda.is_available() else 'cpu', plan()
    a.until += a.begun
    a.work.mkdir(parents=True, exist_ok=True)
    a.rows = a.rows or a.work/'rows.tsv'
    dict(pack=pack, fill=fill, run=run, trial=trial, card=card, table=table, **{'try': attempt})[a.what](a)

if __name__=='__main__': main()
