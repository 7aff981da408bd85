"""Does it help a network to be told what others know of a parcel: genes, layers of cells, fibres? For a CUDA card.

    python tools/known_places.py pack                 # where the data are: what is known of each parcel
    python tools/known_places.py priors               # Gaussians of 22 people, for the last trainings
    python tools/known_places.py run --until 350      # trainings, in order of importance
    python tools/known_places.py table                # nbs/results/known_places.tsv
    python tools/known_places.py trial                # all of it at toy size, on a CPU

HCP rest, five folds over 30 people. A network learns half of the areas (both sides of each) from 4, 8 or 22 people, and
fills in six others: the areas that it has learned, and the other half, an atlas that it has never seen; then the 122
regions of a pain study, never seen either. Each is told coordinates; and what is known, beside or instead of them, as
it is, shuffled over areas, or turned about the hemisphere; or its attention starts from the fibres. At last networks on
a prior, which has people of both halves, as the shipped recipe asks; and one column alone, the genes' first."""
import argparse
import gc
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import scaling
import torch

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import write_whole
from brainlm.evidence import keep_results, read_kept, result_rows
from brainlm.masking import n_visible, patchify
from brainlm.metrics import sum_columns, sum_scores
from brainlm.model import wired
from brainlm.prior import SpaceTimePrior
from brainlm.stats import mean_interval, spins, verdicts

root = Path(__file__).resolve().parents[1]
ratios, window, dt_s = (.2, .5, .75), 200, .72
ways = ('coordinates', 'fourier', 'beside', 'shuffled', 'turned', 'instead', 'fibres', 'shuffled fibres')
on_prior = tuple(f'prior, {w}' for w in ('coordinates', 'beside', 'shuffled', 'fourier', 'fibres', 'shuffled fibres'))

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
    again = [o for o in each(22, 'again') if not o.fold]                    # as 'coordinates': do old rows still hold?
    asked = each(22, *ways)+each(4, *ways)+each(8, *ways)
    return again+asked+each(22, *on_prior[:3])+each(22, *on_prior[3:])+each(22, 'one')

def sides(c, run):
    "People to test on and to learn from"
    folds = np.array_split(np.random.default_rng(0).permutation(len(c.people)), 5)
    return folds[run.fold], np.concatenate([o for i,o in enumerate(folds) if i!=run.fold])[:run.people]

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

def file_of_prior(a, fold, half): return a.priors/f'{fold}-{half}.pt'

def priors(a):
    "Priors of the people to learn from, for both halves of each fold"
    c = hcp(a)
    a.priors.mkdir(parents=True, exist_ok=True)
    for fold in a.folds:
        for name,at in zip(('seen', 'unseen'), halves(c.parcellation, fold)):
            if (file := file_of_prior(a, fold, name)).exists(): continue
            people = [(c.names[i], c.people[i][:,at]) for i in sides(c, Run(people=22, fold=fold))[1]]
            prior = SpaceTimePrior(len(at))
            prior.fit(partial(iter, people), dt_s)
            torch.save(prior.state_dict(), file)
            print(file.name, prior, f'{time.time()-a.begun:.0f} s', flush=True)

class Guess:
    "What the prior of a fold and half says of windows; kept, as all ways ask the same"
    def __init__(self, a, fold, half, device):
        saved = torch.load(file_of_prior(a, fold, half), weights_only=True)
        self.prior, self.folder, self.name = SpaceTimePrior(len(saved['mean'])), a.work/'guesses', f'{fold}-{half}'
        self.prior.load_state_dict(saved)
        self.prior.to(device)

    @torch.no_grad()
    def __call__(self, x, mask, word):
        file = self.folder/f'{self.name}-{word}.pt'
        if file.exists(): return torch.load(file, weights_only=True).to(x.device)
        parts = [slice(i, i+24) for i in range(0, len(x), 24)]
        found = torch.cat([self.prior.guess(patchify(x[o].float()), ~mask[o]).half() for o in parts])
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(found, part := self.folder/f'{file.name}.{os.getpid()}')
        os.replace(part, file)
        return found

def with_columns(parcellation, at, known, fibres):
    "Some parcels, with what is known of them in their table"
    columns = {f'known {k+1}': known[at,k] for k in range(known.shape[1])}
    t = parcellation.table.iloc[at].reset_index(drop=True).assign(**columns)
    return wired(Parcellation(f'{parcellation.name} part', t.assign(id=range(1, len(t)+1))), fibres[np.ix_(at, at)])

def hidden(rng, shape, ratio):
    "Masks that hide just this share [window, parcel, patch]"
    n, tokens = shape[0], shape[1]*shape[2]
    order = torch.rand(n, tokens, generator=rng, device=rng.device).argsort(1)
    return (order>=n_visible(tokens, ratio)).view(shape)

class Windows:
    "What `scaling.Steps` asks of a pool: windows of signals [time, parcel] on the device"
    def __init__(self, signals, parcellation, n, seed, guess=None):
        rng = np.random.default_rng(seed)
        who = rng.integers(len(signals), size=n)
        start = [rng.integers(len(signals[w])-window+1) for w in who]
        self.x = torch.stack([signals[w][s:s+window].T for w,s in zip(who, start)]).half()
        self.name, self.parcellation, self.device, self.complete = 'known', parcellation, self.x.device, True
        self.ratio = np.arange(n)%3
        draw, shape = torch.Generator(self.device).manual_seed(seed), (n, self.x.shape[1], window//20)
        self.mask = torch.zeros(shape, dtype=torch.bool, device=self.device)
        for k,r in enumerate(ratios):
            at = torch.as_tensor(self.ratio==k, device=self.device)
            self.mask[at] = hidden(draw, (int(at.sum()), *shape[1:]), r)
        self.valid, self.guess, self.error = self.mask, self.x, [float(self.x[:200].float().square().mean())]*3
        if guess is None: return                                            # otherwise the error is that of the prior
        self.guess = guess(self.x, self.mask, 'training')
        self.error = [scaling.Pool.prior_error(self, np.flatnonzero(self.ratio==k)[:200]) for k in range(3)]
    def of(self, people, most): return [np.flatnonzero(self.ratio==k) for k in range(3)]

def side_by_side(several, until):
    "The steps of several trainings, in turn; seconds of each, None where there is no time for all"
    wait = torch.cuda.synchronize if several[0].device.type=='cuda' else (lambda: None)
    wait()
    start, n = time.time(), several[0].run.steps
    for i in range(n):
        for o in several:
            with torch.cuda.stream(o.lane) if o.lane else nullcontext():
                if o.which[i] in o.played: o.played[o.which[i]].replay()
                else: o.step(*o.which[i])
        if i!=40: continue
        wait()
        if start+(time.time()-start)/40*n*.9>until: return None
    wait()
    return (time.time()-start)/n

def trained(a, several, until):
    "The trainings after their steps, and seconds of each step; None where there is no time for all of them"
    torch.set_float32_matmul_precision('high')
    torch.backends.cuda.enable_cudnn_sdp(False)
    made = [type('Those', (scaling.Steps,), dict(lane=lane))(o.run, {o.pool.name: o.pool}, a.bf16)
            for o,lane in zip(several, a.lanes)]
    if a.device=='cuda': [o.record() for o in made]
    seconds = side_by_side(made, until)
    torch.set_float32_matmul_precision('highest')
    return None if seconds is None else ([o.model.eval() for o in made], seconds)

# Scores

@torch.no_grad()
def scored(model, people, names, seed):
    "R² of each person and mask ratio, on up to five windows; people of as many windows at once"
    rows, device, n_of = [], people[0].device, [min(5, len(s)//window) for s in people]
    for n in sorted(set(n_of)):
        who = [i for i,o in enumerate(n_of) if o==n]
        x = torch.stack([people[i][k*window:(k+1)*window].T for i in who for k in range(n)]).float()
        draw = torch.Generator(device).manual_seed(seed)
        for r in ratios:
            mask = hidden(draw, (n, x.shape[1], window//20), r).repeat(len(who), 1, 1)
            sums = scaling.sums_of(patchify(x), model(x, mask, f'score-{n}-{r}'), mask)
            rows += [(names[i], r, *o) for i,o in zip(who, sums.reshape(len(who), n, -1).sum(1))]
    t = pd.DataFrame(rows, columns=['subject', 'ratio', *sum_columns])
    return t[['subject', 'ratio']].assign(r2=sum_scores(t[sum_columns].to_numpy())['r2'])

class Told:
    "A training that is told something: its windows, and what it will be scored on"
    def __init__(self, a, run, data):
        self.run, (c, self.other) = run, data
        self.c, (self.test, train) = c, sides(c, run)
        self.seen, self.unseen = halves(c.parcellation, run.fold)
        self.known, self.fibres = told(c, run)
        columns = ','.join(f'known {k+1}' for k in range(self.known.shape[1]))
        way = run.way.removeprefix('prior, ')
        run.place = {'instead': columns, 'one': 'xyz,known 1'}.get(way, 'xyz')
        if way in ('beside', 'shuffled', 'turned'): run.place = f'xyz,{columns}'
        if way=='fourier': run.xyz = 'fourier'
        self.guess = None
        if way!=run.way:
            run.prior = 'space-time'
            self.guess = {k: Guess(a, run.fold, k, a.device) for k in ('seen', 'unseen')}
        if 'fibres' in way: run.wires = 'fibres'
        here = with_columns(c.parcellation, self.seen, self.known, self.fibres)
        people = [c.people[i][:,self.seen] for i in train]
        self.pool = Windows(people, here, a.windows, run.fold, None if self.guess is None else self.guess['seen'])

    def scores(self, model):
        "R² in the areas it has learned, and on two atlases that it has not seen"
        c, test = self.c, self.test
        some = [('seen', c, self.seen, self.known, self.fibres, test)]
        some.append(('unseen', c, self.unseen, self.known, self.fibres, test))
        if (d := self.other) is not None and self.run.way in ('coordinates', 'fourier', 'beside', 'instead', 'fibres'):
            some.append(('pain', d, np.arange(len(d.parcellation)), d.known, d.fibres, range(len(d.people))))
        tables = []
        for name,d,at,columns,wires,who in some:
            given = None if self.guess is None else scaling.Given()
            m = model if name=='seen' else model.on(with_columns(d.parcellation, at, columns, wires), None, given)
            people, names = [d.people[i][:,at] for i in who], [d.names[i] for i in who]
            for way,fills in self.fillers(m.to(people[0].device), name).items():
                tables.append(scored(fills, people, names, 1).assign(atlas=name, way=way))
        return pd.concat(tables).assign(people=self.run.people, fold=self.run.fold, steps=self.run.steps)

    def fillers(self, model, name):
        "What is scored in an atlas: functions of windows, masks and what is asked"
        if self.guess is None: return {self.run.way: lambda x, mask, word: model(x, mask=mask).prediction}
        guess = self.guess[name]
        found = {self.run.way: lambda x, mask, word: scaling.at_prior(model, x, guess(x, mask, word), mask).prediction}
        if self.run.way==on_prior[0]: found['prior alone'] = lambda *some: patchify(guess(*some).float())
        return found

def some_runs(a, runs, data, until):
    "Train several at once, score them, keep the rows; whether there was time"
    several = [Told(a, o, data) for o in runs]
    if (got := trained(a, several, until)) is None: return False
    for o,model in zip(several, got[0]):
        t = o.scores(model).assign(seconds=got[1])
        write_whole(file_of(a, o.run), t.to_csv(sep='\t', index=False, float_format='%.7g'))
        found = dict(t.groupby('atlas')['r2'].mean().round(4).astype(object))
        print(o.run.people, o.run.fold, o.run.way, f'{got[1]*1e3:.1f} ms for {len(runs)}', found, flush=True)
    return True

def file_of(a, run): return a.work/f'{run.people}-{run.fold}-{run.way}.tsv'

def free(a):
    "Trainings that no other process has begun"
    for o in plan(a):
        if not file_of(a, o).exists() and scaling.claimed(file_of(a, o)): yield o

def run_some(a, data):
    "Trainings, some at once, while there is time; those that fail together are tried one by one"
    waiting = free(a)
    while time.time()<a.until and (runs := list(islice(waiting, len(a.lanes)))):
        tries = [runs]
        while tries:
            runs = tries.pop(0)
            try: done = some_runs(a, runs, data, a.until)
            except Exception as e:
                print(*[file_of(a, o).stem for o in runs], f'{type(e).__name__}: {e}'[:500], flush=True)
                if len(runs)>1: tries += [[o] for o in runs]
                continue
            for o in () if done else runs: Path(f'{file_of(a, o)}.claim').unlink()

def take_rows(a):
    "Rows of an earlier run, so that nothing is done again"
    if a.first is None: return
    for (people,fold,way),t in pd.read_csv(a.first, sep='\t').groupby(['people', 'fold', 'way'], sort=False):
        file = file_of(a, Run(people=people, fold=fold, way=way))
        if not file.exists(): write_whole(file, t.to_csv(sep='\t', index=False, float_format='%.7g'))

def on_device(a, c):
    "A cohort whose recordings lie where they are read"
    if c is not None: c.people = [torch.from_numpy(np.ascontiguousarray(o, 'float32')).to(a.device) for o in c.people]
    return c

def run(a):
    take_rows(a)
    c = hcp(a)
    other = pain(a, c) if (a.pain/'pain.npz').exists() else None
    gc.freeze()                                                             # each graph is recorded after a collection
    run_some(a, (on_device(a, c), on_device(a, other)))
    print(f'{keep_rows(a)} trainings are there, {time.time()-a.begun:.0f} s')

def keep_rows(a):
    "All rows in one file"
    rows = [pd.read_csv(f, sep='\t') for f in sorted(a.work.glob('*-*-*.tsv'))]
    if rows: write_whole(a.rows, pd.concat(rows).to_csv(sep='\t', index=False, float_format='%.7g'))
    return len(rows)

# The table

words = dict(seen='the areas it learned', unseen='areas it never saw', pain='heat pain, 122 regions it never saw')
rivals = {'beside': ('coordinates', 'shuffled', 'turned', 'fourier'), 'instead': ('coordinates',),
    'fibres': ('coordinates', 'shuffled fibres'), 'one': ('coordinates',), 'prior, coordinates': ('prior alone',),
    'prior, beside': ('prior, coordinates', 'prior, shuffled', 'prior, fourier'),
    'prior, fibres': ('prior, coordinates', 'prior, shuffled fibres')}

def rows_of(t, n, atlas, with_prior):
    "Rows of one number of people and atlas, with or without a prior: one family of comparisons"
    each = t.groupby(['subject', 'fold', 'way'])['r2'].mean().unstack()
    people = each.groupby('subject').mean()
    values = {w: (v.mean(), *mean_interval(v.to_numpy()), len(v)) for w,v in people.items() for v in [v.dropna()]}
    values = pd.DataFrame(values, ['value', 'low', 'high', 'n']).T
    pairs = [(w, r) for w,o in rivals.items() for r in o if w in people and r in people]
    more = {f'{w}|{r}': (each[w]-each[r]).groupby('subject').mean().dropna().to_numpy() for w,r in pairs}
    family = verdicts(more, '', 'R²')                                      # in the folds that both have
    for v in family: v.mine, v.rival = v.rival.split('|')
    data = f'HCP rest, {n} people learned from'+(', on a prior' if with_prior else '')
    facts = dict(task=f'fill in {words[atlas]}, mean of three masks', data=data)
    controls = [w for w in people if 'shuffled' in w or 'turned' in w]
    return result_rows(values, family, list(rivals), controls, metric='R²', **facts)

def table(a):
    "Rows of all trainings, in a file that is made anew"
    t = pd.read_csv(a.rows, sep='\t')
    a.out.unlink(missing_ok=True)
    twice = t.query("people==22 and fold==0 and way in ('again', 'coordinates') and atlas!='pain'")
    print('trained twice, mean R² of each:', twice.groupby('way')['r2'].mean().to_dict())
    t = t[t['way'].ne('again')].sort_values('people', ascending=False, kind='stable')
    groups = t.groupby(['people', 'atlas', t['way'].str.startswith('prior')], sort=False)
    keep_results(a.out, pd.concat([rows_of(g, *k) for k,g in groups]), 'python tools/known_places.py')
    shown = ['task', 'data', 'model', 'rival', 'difference', 'difference_low', 'difference_high', 'says', 'n']
    print(read_kept(a.out).query("rival!=''")[shown].to_string())

def trial(a):
    "Two folds of few steps on waves"
    a.folds, a.steps, a.windows = (0,), 3, 24
    c = toy()
    a.priors.mkdir(parents=True, exist_ok=True)
    for half,at in zip(('seen', 'unseen'), halves(c.parcellation, 0)):
        torch.save(SpaceTimePrior(len(at)).state_dict(), file_of_prior(a, 0, half))
    run_some(a, (on_device(a, c), None))
    assert keep_rows(a)==len({file_of(a, r) for r in plan(a)}), 'a training failed'
    a.out = a.work/'table'/'known_places.tsv'
    table(a)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'priors', 'run', 'table', 'trial'])
    p.add_argument('--work', type=Path, default=root/'runs'/'known_places', help='folder of rows')
    p.add_argument('--data', type=Path, default=root/'.gpu'/'h6', help='folder of what is known')
    p.add_argument('--priors', type=Path, default=root/'.gpu'/'h1'/'priors', help='folder of priors')
    p.add_argument('--cohorts', type=Path, default=root/'.gpu'/'first', help='folder of hcp.npz of tools/scaling.py')
    p.add_argument('--pain', type=Path, default=root/'.gpu'/'second', help='folder of pain.npz of tools/scaling.py')
    p.add_argument('--rows', type=Path, default=None, help='a row a person, mask and training')
    p.add_argument('--first', type=Path, default=None, help='rows of an earlier run, which are not made again')
    p.add_argument('--at-once', type=int, default=3, help='trainings side by side in a process')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'known_places.tsv', help='the table of results')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--steps', type=int, default=1000, help='of a training')
    p.add_argument('--windows', type=int, default=3000, help='of a training')
    p.add_argument('--folds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    p.add_argument('--bf16', action='store_true')
    a = p.parse_args(argv)
    a.begun, a.device = time.time(), 'cuda' if torch.cuda.is_available() else 'cpu'
    a.until += a.begun
    a.bf16 = a.bf16 and a.device=='cuda'
    a.lanes = [torch.cuda.Stream() if a.device=='cuda' else None for _ in range(a.at_once)]
    a.work.mkdir(parents=True, exist_ok=True)
    a.rows = a.rows or a.work/'rows.tsv'
    if a.what=='trial': a.priors = a.work/'priors'
    dict(pack=pack, priors=priors, run=run, table=table, trial=trial)[a.what](a)

if __name__=='__main__': main()
