"""Does it help a network to be told what others know of a parcel: genes, layers of cells, fibres? For a CUDA card.

    python tools/known_places.py pack                 # where the data are: what is known of each parcel
    python tools/known_places.py run --until 350      # trainings, in order of importance
    python tools/known_places.py table                # nbs/results/known_places.tsv
    python tools/known_places.py trial                # all of it at toy size, on a CPU

HCP rest, five folds over 30 people. A network learns half of the areas (both sides of each) from 4, 8 or 22 people, and
fills in six others: the areas that it has learned, and the other half, an atlas that it has never seen; then the 122
regions of a pain study, never seen either. Each is told coordinates; and what is known, beside or instead of them, as
it is, shuffled over areas, or turned about the hemisphere; or its attention starts from the fibres."""
import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import scaling
import torch
from torch import nn
from torch.nn import functional as F

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import write_whole
from brainlm.evidence import keep_results, read_kept, result_rows
from brainlm.masking import n_visible, patchify
from brainlm.metrics import sum_columns, sum_scores
from brainlm.stats import mean_interval, spins, verdicts

root = Path(__file__).resolve().parents[1]
ratios, window, dt_s = (.2, .5, .75), 200, .72
ways = ('coordinates', 'fourier', 'beside', 'shuffled', 'turned', 'instead', 'fibres', 'shuffled fibres')

# Data

def pack(a):
    "What is known of each area: five components of genes, layers of cells, eight of fibres; mean 0, SD 1"
    from brainlm.datasets import fetch_connectome, fetch_maps
    from brainlm.maps import connectome_maps, leading_components, mirrored
    genes, fibres = leading_components(mirrored(fetch_maps('genes').table), 5), fetch_connectome().matrix
    known = np.hstack([genes, fetch_maps('histology').table, connectome_maps(fibres, 8)])
    known = (known-np.nanmean(known, 0))/np.nanstd(known, 0)
    a.data.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(a.data/'known.npz', known=np.nan_to_num(known).astype('float32'), fibres=fibres.astype('f4'))

def scaled(x):
    "Each parcel of a recording [time, parcel] with median 0 and IQR 1"
    x = x.astype('float32')
    n, order = len(x), np.sort(np.ascontiguousarray(x.T))                   # much faster than percentiles
    low, mid, high = order[:,[n//4, n//2, 3*n//4]].T
    return (x-mid)/np.maximum(high-low, 1e-6)

def at_rate(x, dt):
    "A recording at the rate of the others"
    now, old = np.arange(0, (len(x)-1)*dt, dt_s), np.arange(len(x))*dt
    return np.stack([np.interp(now, old, o) for o in x.T], 1)

@dataclass
class Cohort:
    "Recordings in an atlas, and what is known of its parcels"
    parcellation:Parcellation
    people:list # [time, parcel] each
    known:np.ndarray # [parcel, column]
    fibres:np.ndarray # [parcel, parcel]
    names:list # of people

def hcp(a):
    p, got, known = load_parcellation('glasser360'), np.load(a.cohorts/'hcp.npz'), np.load(a.data/'known.npz')
    return Cohort(p, [scaled(o) for o in got['x']], known['known'], known['fibres'], list(map(str, got['subject'])))

def pain(a, of):
    "First runs of the pain study; a region knows what areas within a few mm know, and nothing far from them"
    got = np.load(a.pain/'pain.npz')
    p = load_parcellation(a.pain/'pain.tsv')
    first = [np.flatnonzero(got['subject']==s)[0] for s in pd.unique(got['subject'])]
    runs = [at_rate(got['x'][i,:got['n_time'][i]].astype('float32'), float(got['dt_s'])) for i in first]
    there = ~np.stack([np.isnan(o).any(0) for o in runs]).any(0)
    p = Parcellation('mist', p.table[there].reset_index(drop=True).assign(id=range(1, there.sum()+1)))
    far = np.linalg.norm(p.xyz_mm[:,None]-of.parcellation.xyz_mm, axis=-1)
    near = np.exp(-(far/8)**2/2)
    share = near/np.maximum(near.sum(1, keepdims=True), .1)
    names = [str(got['subject'][i]) for i in first]
    return Cohort(p, [scaled(o[:,there]) for o in runs], share@of.known, share@of.fibres@share.T, names)

def toy():
    "Recordings of waves, half known from the columns"
    recordings, _ = scaling.made_up(12, 24, 260)
    table = load_parcellation('glasser360').table
    both = [k for k in range(360) if table['name'][k][2:] in set(table['name'][:12].str[2:])]
    p, rng = Parcellation('toy', table.iloc[both].reset_index(drop=True)), np.random.default_rng(0)
    people = [scaled(r.signal) for r in recordings]
    return Cohort(p, people, rng.standard_normal((24, 3)), np.abs(rng.standard_normal((24, 24))), list(range(12)))

# Trainings

@dataclass
class Run(scaling.Run):
    "A training of `scaling`, told something"
    preset:str='nano'
    steps:int=1000
    prior:str='none'
    fold:int=0
    way:str='coordinates'

def plan(a):
    "Trainings, those that the question needs first"
    def each(people, *some): return [Run(people=people, fold=f, way=w, steps=a.steps) for f in a.folds for w in some]
    several = each(22, *ways[:2], *ways[2:5])+each(4, ways[0], *ways[2:5])
    return several+each(22, *ways[5:])+each(8, ways[0], *ways[2:5])+each(4, ways[1], *ways[5:])

def halves(parcellation, seed):
    "Numbers of two halves of the areas; both sides of an area are in one"
    area = np.array([n[2:] for n in parcellation.names])
    order = np.random.default_rng(seed).permutation(np.unique(area))
    first = np.isin(area, order[:len(order)//2])
    return np.flatnonzero(first), np.flatnonzero(~first)

def told(c, run):
    "Columns and fibres as a way tells them"
    rng, n = np.random.default_rng(100+run.fold), len(c.parcellation)
    order = np.arange(n)
    if 'shuffled' in run.way: order = rng.permutation(n)
    if run.way=='turned': order = spins(c.parcellation, 1, run.fold+1)[0]
    return c.known[order], c.fibres[np.ix_(order, order)]

def with_columns(parcellation, at, known):
    "Some parcels, with what is known of them in their table"
    columns = {f'known {k+1}': known[at,k] for k in range(known.shape[1])}
    t = parcellation.table.iloc[at].reset_index(drop=True).assign(**columns)
    return Parcellation(f'{parcellation.name} part', t.assign(id=range(1, len(t)+1)))

def hidden(rng, shape, ratio):
    "Masks that hide just this share [window, parcel, patch]"
    n, tokens = shape[0], shape[1]*shape[2]
    order = torch.rand(n, tokens, generator=rng, device=rng.device).argsort(1)
    return (order>=n_visible(tokens, ratio)).view(shape)

class Windows:
    "What `scaling.Steps` asks of a pool"
    def __init__(self, signals, parcellation, n, seed, device):
        rng = np.random.default_rng(seed)
        who = rng.integers(len(signals), size=n)
        start = [rng.integers(len(signals[w])-window+1) for w in who]
        x = np.stack([signals[w][s:s+window].T for w,s in zip(who, start)])
        self.x = torch.from_numpy(x.astype('float16')).to(device)
        self.name, self.parcellation, self.device, self.complete = 'known', parcellation, self.x.device, True
        self.ratio, self.guess = np.arange(n)%3, self.x                    # there is no prior that would guess
        draw, shape = torch.Generator(self.device).manual_seed(seed), (n, x.shape[1], window//20)
        self.mask = torch.zeros(shape, dtype=torch.bool, device=device)
        for k,r in enumerate(ratios):
            at = torch.as_tensor(self.ratio==k, device=device)
            self.mask[at] = hidden(draw, (int(at.sum()), *shape[1:]), r)
        self.valid, self.error = self.mask, [float(self.x[:200].float().square().mean())]*3
    def of(self, people, most): return [np.flatnonzero(self.ratio==k) for k in range(3)]

def lean_on(model, fibres, weight=None):
    "Attention between parcels begins with a weight of each head times the fibres"
    bias = torch.from_numpy((fibres/fibres.std()).astype('float32'))
    bias = F.pad(bias, (1, 0, 1, 0)).to(model.cls)
    if weight is None: weight = model.fibre_weight = nn.Parameter(torch.zeros(model.config.heads, 1, 1).to(model.cls))
    layout_of = type(model)._layout
    def layout(*args, **more):
        found = layout_of(model, *args, **more)
        mask, more_likely = found.masks['parcel'], (weight*bias)[None]
        if torch.is_autocast_enabled('cuda'): more_likely = more_likely.to(torch.get_autocast_dtype('cuda'))
        found.masks['parcel'] = more_likely if mask is None else more_likely.masked_fill(~mask, -torch.inf)
        return found
    model._layout = layout

class Steps(scaling.Steps):
    "A training that is told where the fibres are"
    fibres = None
    def __init__(self, run, pools, bf16):
        made = scaling.network
        def network(*some):
            model = made(*some)
            if self.fibres is not None: lean_on(model, self.fibres)
            return model
        scaling.network = network
        try: super().__init__(run, pools, bf16)
        finally: scaling.network = made

def trained(a, run, pool, fibres, until):
    "The network after its steps; None where there is no time for all of them"
    torch.set_float32_matmul_precision('high')
    torch.backends.cuda.enable_cudnn_sdp(False)
    steps = type('Those', (Steps,), dict(fibres=fibres))(run, {pool.name: pool}, a.bf16)
    if a.device=='cuda': steps.record()
    seconds = steps.go(until)
    torch.set_float32_matmul_precision('highest')
    return None if seconds is None else (steps.model.eval(), seconds)

# Scores

@torch.no_grad()
def scored(model, people, names, seed):
    "R² of each person and mask ratio, on up to five windows"
    rows, device = [], model.cls.device
    for s,name in zip(people, names):
        n = min(5, len(s)//window)
        x = torch.from_numpy(np.stack([s[i*window:(i+1)*window].T for i in range(n)])).float().to(device)
        draw = torch.Generator(device).manual_seed(seed)
        for r in ratios:
            mask = hidden(draw, (n, x.shape[1], window//20), r)
            sums = scaling.sums_of(patchify(x), model(x, mask=mask).prediction, mask).sum(0)
            rows.append((name, r, *sums))
    t = pd.DataFrame(rows, columns=['subject', 'ratio', *sum_columns])
    return t[['subject', 'ratio']].assign(r2=sum_scores(t[sum_columns].to_numpy())['r2'])

def one_run(a, run, data, until):
    "Train, score on three atlases, keep the rows; whether there was time"
    c, other = data
    folds = np.array_split(np.random.default_rng(0).permutation(len(c.people)), 5)
    test = folds[run.fold]
    train = np.concatenate([o for i,o in enumerate(folds) if i!=run.fold])[:run.people]
    seen, unseen = halves(c.parcellation, run.fold)
    known, fibres = told(c, run)
    columns = ','.join(f'known {k+1}' for k in range(known.shape[1]))
    run.place = {'instead': columns}.get(run.way, 'xyz')
    if run.way in ('beside', 'shuffled', 'turned'): run.place = f'xyz,{columns}'
    if run.way=='fourier': run.xyz = 'fourier'
    here = with_columns(c.parcellation, seen, known)
    leans = fibres if 'fibres' in run.way else None
    pool = Windows([c.people[i][:,seen] for i in train], here, a.windows, run.fold, a.device)
    part = None if leans is None else fibres[np.ix_(seen, seen)]
    if (got := trained(a, run, pool, part, until)) is None: return False
    model, seconds = got
    tables = [scored(model, [c.people[i][:,seen] for i in test], [c.names[i] for i in test], 1).assign(atlas='seen')]
    elsewhere = [('unseen', c, unseen, known, fibres, test)]
    if other is not None and run.way not in ('shuffled', 'turned', 'shuffled fibres'):
        at, who = np.arange(len(other.parcellation)), range(len(other.people))
        elsewhere.append(('pain', other, at, other.known, other.fibres, who))
    for name,d,at,columns,wires,who in elsewhere:
        m = model.on(with_columns(d.parcellation, at, columns))
        if leans is not None: lean_on(m, wires[np.ix_(at, at)], model.fibre_weight)
        tables.append(scored(m, [d.people[i][:,at] for i in who], [d.names[i] for i in who], 1).assign(atlas=name))
    t = pd.concat(tables).assign(people=run.people, fold=run.fold, way=run.way, steps=run.steps, seconds=seconds)
    write_whole(file_of(a, run), t.to_csv(sep='\t', index=False, float_format='%.7g'))
    found = dict(t.groupby('atlas')['r2'].mean().round(4))
    print(run.people, run.fold, run.way, f'{seconds*1e3:.1f} ms', found, flush=True)
    return True

def file_of(a, run): return a.work/f'{run.people}-{run.fold}-{run.way}.tsv'

def run_some(a, data):
    "Trainings that no other process has begun and for which there is time"
    for run in plan(a):
        if time.time()>a.until: return
        if file_of(a, run).exists() or not scaling.claimed(file_of(a, run)): continue
        try: done = one_run(a, run, data, a.until)
        except Exception as e: print(run.people, run.fold, run.way, f'{type(e).__name__}: {e}'[:500], flush=True)
        else:
            if not done: Path(f'{file_of(a, run)}.claim').unlink()

def run(a):
    c = hcp(a)
    run_some(a, (c, pain(a, c) if (a.pain/'pain.npz').exists() else None))
    print(f'{keep_rows(a)} trainings are there, {time.time()-a.begun:.0f} s')

def keep_rows(a):
    "All rows in one file"
    rows = [pd.read_csv(f, sep='\t') for f in sorted(a.work.glob('*-*-*.tsv'))]
    if rows: write_whole(a.rows, pd.concat(rows).to_csv(sep='\t', index=False, float_format='%.7g'))
    return len(rows)

# The table

words = dict(seen='the areas it learned', unseen='areas it never saw', pain='heat pain, 122 regions it never saw')
rivals = {'beside': ('coordinates', 'shuffled', 'turned', 'fourier'), 'instead': ('coordinates',),
    'fibres': ('coordinates', 'shuffled fibres')}

def complete(t):
    "Folds in which all ways of a number of people are there"
    n = t.groupby('fold')['way'].nunique()
    return t[t['fold'].isin(n.index[n==n.max()])]

def rows_of(t, n, atlas):
    "Rows of one number of people and atlas: one family of comparisons"
    people = complete(t).groupby(['subject', 'way'])['r2'].mean().unstack()
    values = {w: (v.mean(), *mean_interval(v.to_numpy()), len(v)) for w,v in people.items()}
    values = pd.DataFrame(values, ['value', 'low', 'high', 'n']).T
    pairs = [(w, r) for w,o in rivals.items() for r in o if w in people and r in people]
    family = verdicts({f'{w}|{r}': (people[w]-people[r]).to_numpy() for w,r in pairs}, '', 'R²')
    for v in family: v.mine, v.rival = v.rival.split('|')
    facts = dict(task=f'fill in {words[atlas]}, mean of three masks', data=f'HCP rest, {n} people learned from')
    return result_rows(values, family, ['beside', 'instead', 'fibres'], ['shuffled', 'turned', 'shuffled fibres'],
        metric='R²', **facts)

def table(a):
    "Rows of all trainings, in a file that is made anew"
    t = pd.read_csv(a.rows, sep='\t')
    a.out.unlink(missing_ok=True)
    rows = [rows_of(g, n, k) for (n,k),g in t.groupby(['people', 'atlas'], sort=False)]
    keep_results(a.out, pd.concat(rows), 'python tools/known_places.py')
    shown = ['task', 'data', 'model', 'rival', 'difference', 'difference_low', 'difference_high', 'says', 'n']
    print(read_kept(a.out).query("rival!=''")[shown].to_string())

def trial(a):
    "Two folds of few steps on waves"
    a.folds, a.steps, a.windows = (0,), 3, 24
    run_some(a, (toy(), None))
    assert keep_rows(a)==len({file_of(a, r) for r in plan(a)}), 'a training failed'
    a.out = a.work/'table'/'known_places.tsv'
    table(a)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'run', 'table', 'trial'])
    p.add_argument('--work', type=Path, default=root/'runs'/'known_places', help='folder of rows')
    p.add_argument('--data', type=Path, default=root/'.gpu'/'h6', help='folder of what is known')
    p.add_argument('--cohorts', type=Path, default=root/'.gpu'/'first', help='folder of hcp.npz of tools/scaling.py')
    p.add_argument('--pain', type=Path, default=root/'.gpu'/'second', help='folder of pain.npz of tools/scaling.py')
    p.add_argument('--rows', type=Path, default=None, help='a row a person, mask and training')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'known_places.tsv', help='the table of results')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--steps', type=int, default=1000, help='of a training')
    p.add_argument('--windows', type=int, default=3000, help='of a training')
    p.add_argument('--folds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    p.add_argument('--bf16', action='store_true')
    a = p.parse_args(argv)
    a.begun, a.device = time.time(), 'cuda' if torch.cuda.is_available() else 'cpu'
    a.until += a.begun
    a.work.mkdir(parents=True, exist_ok=True)
    a.rows = a.rows or a.work/'rows.tsv'
    dict(pack=pack, run=run, table=table, trial=trial)[a.what](a)

if __name__=='__main__': main()
