"""Do larger networks and more people lower the loss? Four sizes by four amounts of people, from six public sets at once.

    python tools/scaling_law.py run --work W --seconds 240    # all trainings side by side on one card
    python tools/scaling_law.py rival --work W                # the group's Gaussian on the same windows, on a CPU
    python tools/scaling_law.py table --work W                # nbs/results/scaling_law.tsv
    python tools/scaling_law.py trial --work W                # both at toy size, on a CPU

The networks are plain ones, as published: joint attention, three quarters hidden, no prior. What is judged is the
share of the variance of hidden samples that a network does not fill in, in people whom no training has seen. All
trainings take turns, a step each, on a stream of their own; the number of steps is what the time allows. Rows are
written as trainings end. `tools/scaling.py pack` makes the data. Without a card, `run` stops and says so, unless it is
told a number of steps."""
import argparse
import gc
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scaling import at_prior, coats, endless, made_up, one_cycle, optimiser, rates, root, sums_of
from scipy.optimize import least_squares
from torch import nn

from brainlm.atlas import load_parcellation
from brainlm.basics import write_whole
from brainlm.evidence import keep_results, read_kept, result_rows
from brainlm.masking import centred, patchify, random_mask
from brainlm.metrics import sum_columns, sum_scores
from brainlm.model import BrainLM, preset
from brainlm.prior import GaussianPrior
from brainlm.stats import mean_interval, verdicts

hidden, batch, at_most = .75, 16, 6000                                      # share of tokens, windows, steps
shares = (1/64, 1/16, 1/4, 1.)                                              # of the training people of each set
sizes = ('nano', 'tiny', 'small', '13m')
sets = dict(hcp=.2, psychosis=.15, abide=.2, depression=.25, pain=.15, aal=.05)   # of the batches
judged = dict(hcp=8, psychosis=20, abide=20, depression=20, pain=8, aal=3, toy=4, toys=3)   # people
watched = dict(hcp=3, psychosis=4, abide=7, depression=17, pain=3, aal=1, toy=1, toys=1)
cycle = lru_cache(one_cycle)
task, data, measure = 'fill in, 75% hidden, no prior', 'six public sets, unseen people', 'share of variance left'

# Data

class Cohort:
    "A set on the device: series, who they are of, a bank of masks, and what is judged and watched"
    def __init__(self, a, name):
        x, who, self.n_time, self.parcellation = series_of(a, name)
        self.name, self.device = name, a.device
        order = np.random.default_rng(2026).permutation(pd.unique(who))
        n, m = judged[name], judged[name]+watched[name]
        self.test, self.watch, self.people = order[:n], order[n:m], order[m:]
        train = np.isin(who, self.people)
        each = np.concatenate([o[:n] for o,n,t in zip(x, self.n_time, train, strict=True) if t])
        x /= np.subtract(*np.percentile(each.astype('float32'), [75, 25], axis=0))
        self.variance = float(np.mean([o[:n].var(0).mean() for o,n,t in zip(x, self.n_time, train, strict=True) if t]))
        self.who, self.long = who, min(200, int(min(self.n_time))//20*20)
        self.x = torch.from_numpy(x).transpose(1, 2).to(a.device, torch.float16).contiguous()
        shape = a.n_masks, x.shape[2], self.long//20
        self.masks = random_mask(torch.ones(shape, dtype=bool), hidden, torch.Generator().manual_seed(1)).to(a.device)
        self.frames = torch.as_tensor(self.n_time, device=a.device)

    def window(self, row, start, mask):
        "Windows [batch, parcel, time] of recordings, centred by what their masks [batch] leave to be seen; and the masks"
        at = (start[:,None]+torch.arange(self.long, device=self.device))[:,None]
        each = torch.arange(self.x.shape[1], device=self.device)[None,:,None]
        m = self.masks.index_select(0, mask)
        return centred(self.x[row[:,None,None],each,at].float(), m, self.frames.index_select(0, row)), m

    def tiled(self, people, times):
        "(recording, start, mask) of windows one after the other, five of a person at most, each so many times"
        found = []
        for p in people:
            rows = np.flatnonzero(self.who==p)
            mine = [(r, s) for r in rows for s in range(0, self.n_time[r]-self.long+1, self.long)][:5]
            found += [(*o, (len(found)+i)*times+k) for i,o in enumerate(mine) for k in range(times)]
        return torch.tensor(found) % torch.tensor([10**9, 10**9, len(self.masks)])

def series_of(a, name):
    "Series [recording, time, parcel] whose parcels all vary, their people and lengths, and the parcellation"
    if name in ('toy', 'toys'):
        found, parcellation = made_up(14, 12 if name=='toys' else 24)
        x, who, n = np.stack([o.signal for o in found]), [f'{name}-{o.subject}' for o in found], [260]*len(found)
        x -= x.mean(1, keepdims=True)
    else:
        file = next(o/f'{name}.npz' for o in a.data if (o/f'{name}.npz').exists())
        got, parcellation = np.load(file), load_parcellation(file.with_suffix('.tsv'))
        x, who, n = got['x'].astype('float32'), got['subject'], got['n_time']
    spread = np.array([o[:k].std(0).min() for o,k in zip(x, n, strict=True)])
    ok = spread>0                                                           # False for NaN
    return np.nan_to_num(x[ok]), np.asarray(who)[ok], np.asarray(n)[ok], parcellation

def first_people(cohort, share):
    "The first so many training people, one at least: the same in every larger amount"
    return cohort.people[:max(1, round(len(cohort.people)*share))]

def drawn(cohorts, share, steps, seed):
    "Of each step its set, and (recording, start, mask) of its windows [step, batch, 3]; sets come alike in all trainings"
    weights = np.array([sets.get(k, 1.) for k in cohorts])
    turns = np.random.default_rng(seed).choice(list(cohorts), steps, p=weights/weights.sum())
    rng, at = np.random.default_rng([seed, round(1/share)]), np.zeros((steps, batch, 3), int)
    for k,c in cohorts.items():
        rows = np.flatnonzero(np.isin(c.who, first_people(c, share)))
        n = int((turns==k).sum())*batch
        row = endless(rng, rows, n)
        start = (rng.random(n)*(c.n_time[row]-c.long+1)).astype(int)
        at[turns==k] = np.stack([row, start, rng.integers(0, len(c.masks), n)], -1).reshape(-1, batch, 3)
    return turns, torch.from_numpy(at)

# Trainings that take turns

@dataclass
class Go:
    "A training"
    size:str
    share:float
    steps:int
    seed:int=0

def new_network(a, size, cohorts, seed):
    first = next(iter(cohorts.values()))
    config = preset(size, n_parcels=len(first.parcellation), attention='joint', xyz='linear', parcel_embedding=False,
                    mask_ratio=hidden, **a.shape)
    torch.manual_seed(seed)
    return BrainLM(config, first.parcellation).to(a.device)

class Training:
    "A network of one size on one amount of people, for one training after the other; it takes a step when it is its turn"
    def __init__(self, a, size, share, cohorts):
        self.a, self.size, self.share, self.cohorts = a, size, share, cohorts
        self.model = new_network(a, size, cohorts, 0)
        self.models = coats(self.model, {k: c.parcellation for k,c in cohorts.items()})
        self.parameters, self.o = [*self.model.parameters()], optimiser(self.model, .05)
        for p in self.parameters: p.grad = torch.zeros_like(p)
        on = partial(torch.zeros, device=a.device)
        self.at, self.now = on(at_most, batch, 3, dtype=torch.long), on(1, dtype=torch.long)
        self.rate, self.loss = on(at_most), on(at_most)
        self.stream = torch.cuda.Stream() if a.cuda else None
        self.played, self.go, self.left = {}, None, []

    def here(self): return torch.cuda.stream(self.stream) if self.stream else nullcontext()
    def low(self): return torch.autocast(self.a.device, torch.bfloat16, cache_enabled=False) if self.a.cuda else nullcontext()

    def step(self, k):
        "One step with a set: nothing in it waits for the device"
        x, mask = self.cohorts[k].window(*self.at.index_select(0, self.now)[0].unbind(-1))
        torch._foreach_zero_([o.grad for o in self.parameters])
        with self.low(): found = at_prior(self.models[k], x, x, mask, ratio=hidden)
        loss = found.loss/self.cohorts[k].variance
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.)
        for group in self.o.param_groups: group['lr'].copy_(self.rate.index_select(0, self.now)[0])
        self.o.step()
        self.loss.index_copy_(0, self.now, loss.detach()[None])
        self.now += 1

    def record(self):
        "A step with each set as a CUDA graph"
        if not self.a.cuda: return
        memory = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize()
        gc.collect()
        gc.disable()                                                        # nothing may be freed while a graph is recorded
        try:
            for k in self.cohorts: self.played[k] = self.recorded(k, memory)
        except Exception as e:
            print(f'{self.size}, {self.share}: no graphs, {type(e).__name__}: {e}'[:300], flush=True)
            self.played = {}
        finally: gc.enable()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()

    def recorded(self, k, memory):
        "The graph of a step, after one that prepares it"
        graph = torch.cuda.CUDAGraph()
        with self.here(): self.step(k)
        torch.cuda.synchronize()
        with self.here():
            graph.capture_begin(pool=memory)
            try: self.step(k)
            finally: graph.capture_end()
        return graph

    def begin(self, go):
        "Weights, optimiser and draws as they are before a training"
        self.go, self.i, self.best, self.seen, self.started = go, 0, None, [], time.time()
        self.turns, at = drawn(self.cohorts, self.share, go.steps, go.seed)
        with self.here(), torch.no_grad():
            fresh = new_network(self.a, self.size, self.cohorts, go.seed)
            for p,o in zip(self.parameters, fresh.parameters(), strict=True): p.copy_(o)
            for state in self.o.state.values():
                for o in state.values(): o.zero_()
            self.at[:go.steps].copy_(at)
            self.rate[:go.steps].copy_(cycle(rates[self.size], go.steps))
            self.now.zero_()
        self.looks = {round(go.steps*q) for q in (.25, .5, .75, 1)}
        if self.stream: torch.cuda.synchronize()

    def advance(self):
        "Take a step; whether the training has ended"
        k = self.turns[self.i]
        with self.here():
            self.played[k].replay() if k in self.played else self.step(k)
            self.i += 1
            if self.i in self.looks: self.look()
        return self.i==self.go.steps

    def look(self):
        "Keep the weights that do best in the watched people"
        loss = self.judge('watch', 1)['loss'].mean()
        if not self.seen or loss<min(self.seen): self.best = [p.detach().clone() for p in self.parameters]
        self.seen.append(float(loss))

    @torch.no_grad()
    def judge(self, side, times):
        "Share of variance left in each person"
        rows = []
        for k,c in self.cohorts.items():
            at = c.tiled(getattr(c, side), times)
            names = c.who[at[:,0].numpy()]
            for part,who in zip(at.split(32), np.split(names, range(32, len(names), 32)), strict=True):
                x, mask = c.window(*part.to(self.a.device).unbind(-1))
                with self.low(): found = at_prior(self.models[k].eval(), x, x, mask, ratio=hidden).prediction
                rows += [(k, s, *o) for s,o in zip(who, sums_of(patchify(x), found, mask), strict=True)]
            self.models[k].train()
        return loss_of(rows)

    def ended(self):
        "Rows of the people and of the training, with the weights of the best look and with the last ones"
        with self.here():
            last = self.judge('test', 2)
            with torch.no_grad():
                for p,o in zip(self.parameters, self.best, strict=True): p.copy_(o)
            people = self.judge('test', 2).assign(last=last['loss'])
        n = sum(len(first_people(c, self.share)) for c in self.cohorts.values())
        facts = asdict(self.go) | dict(people=n, parameters=sum(p.numel() for p in self.parameters))
        tail = self.loss[self.go.steps*9//10:self.go.steps].mean()
        run = facts | dict(flop=flop_of(self.model.config, self.turns, self.cohorts), train_loss=float(tail),
                           watch=' '.join(f'{o:.5f}' for o in self.seen), seconds=time.time()-self.started)
        return people.assign(**facts), run

def flop_of(config, turns, cohorts):
    "Floating-point operations of a training, those of its matrix products"
    from gpu_speed import products
    each = {k: products(type(config)(**asdict(config) | dict(n_parcels=len(c.parcellation), n_time=c.long)), hidden)[1]
            for k,c in cohorts.items()}
    return float(sum(each[k] for k in turns)*batch)

def keep(a, done):
    "All rows so far, in two files"
    people, runs = (pd.concat(o) for o in ([p for p,_ in done], [pd.DataFrame([r]) for _,r in done]))
    facts = dict(device=torch.cuda.get_device_name() if a.cuda else 'CPU', torch=torch.__version__, date=date.today().isoformat())
    for name,t in (('people', people), ('runs', runs.assign(**facts))):
        write_whole(a.work/f'{name}.tsv', t.to_csv(sep='\t', index=False, float_format='%.6g'))

def round_s(trainings, cuda, rounds):
    "Seconds in which all trainings take a step, sets as they come"
    for o in trainings: o.begin(Go(o.size, o.share, at_most))
    for o in trainings: o.looks = set()
    start = time.time()
    for _ in range(rounds):
        for o in trainings: o.advance()
    if cuda: torch.cuda.synchronize()
    return (time.time()-start)/rounds

def goes(a, trainings, steps):
    "What each training does one after the other: all steps; with everybody, fewer steps too; then another seed"
    for o in trainings:
        one = partial(Go, o.size, o.share)
        o.left = [one(steps)]+[one(max(1, steps//k)) for k in (4, 16) if o.share==1]
        if o.size!='13m': o.left += [one(steps, seed=1)]

def run(a):
    "All trainings, a step each in turn, until all are there or the time is over"
    if not (a.cuda or a.steps): raise SystemExit('scaling_law.py: found no CUDA card, expected one, or a number of --steps; '
                                                 '`trial` is the check without a card')
    torch.set_float32_matmul_precision('high')
    if a.cuda: torch.backends.cuda.enable_cudnn_sdp(False)
    cohorts, begun = {k: Cohort(a, k) for k in a.sets}, time.time()
    print({k: f'{c.x.shape[0]} x {c.long}, {len(c.people)} people' for k,c in cohorts.items()}, flush=True)
    trainings = [Training(a, s, n, cohorts) for s in a.sizes[::-1] for n in a.shares[::-1]]
    for o in trainings: o.record()
    ready, each = time.time()-begun, round_s(trainings, a.cuda, 24 if a.cuda else 1)
    steps = a.steps or int(min(at_most, max(100, a.part*(a.until-time.time())/each)))
    print(f'recorded in {ready:.0f} s, a round of {len(trainings)} takes {each*1e3:.1f} ms: {steps} steps each', flush=True)
    goes(a, trainings, steps)
    take_turns(a, trainings)

def take_turns(a, trainings):
    "Steps in turn, rows as trainings end"
    done, turn = [], 0
    for o in trainings: o.begin(o.left.pop(0))
    while trainings and time.time()<a.until:
        turn += 1
        for o in [*trainings]:
            if not o.advance(): continue
            done.append(o.ended())
            keep(a, done)
            print(', '.join(f'{k} {v}' for k,v in asdict(o.go).items()), f"left {done[-1][0]['loss'].mean():.4f}", flush=True)
            o.begin(o.left.pop(0)) if o.left else trainings.remove(o)
        if a.cuda and turn%25==0: torch.cuda.synchronize()
    print(f'{len(done)} trainings are there, {len(trainings)} were not ended', flush=True)

# A rival

@torch.no_grad()
def rival(a):
    "What a Gaussian of all training people leaves on the same hidden samples: closed form, moment by moment"
    rows = []
    for k in a.sets:
        c = Cohort(a, k)
        x, prior = c.x.float().mT.numpy(), GaussianPrior(c.x.shape[1])
        mine = np.flatnonzero(np.isin(c.who, c.people))
        prior.fit(lambda x=x, c=c, mine=mine: ((c.who[i], x[i,:c.n_time[i]]) for i in mine))
        at = c.tiled(c.test, 2)
        for i in range(0, len(at), 8):
            w, mask = c.window(*at[i:i+8].unbind(-1))
            patches = patchify(w)
            sums = sums_of(patches, prior(patches, ~mask), mask)
            rows += [(k, s, *o) for s,o in zip(c.who[at[i:i+8,0].numpy()], sums, strict=True)]
        print(k, flush=True)
    loss_of(rows).to_csv(a.work/'rival.tsv', sep='\t', index=False, float_format='%.6g')

def loss_of(rows):
    "Share of variance left in each person, from rows of (set, person, sums of a window)"
    t = pd.DataFrame(rows, columns=['cohort', 'subject', *sum_columns]).groupby(['cohort', 'subject'], sort=False).sum()
    return pd.DataFrame(dict(loss=1-sum_scores(t.values)['r2']), t.index).reset_index()

# The law

def law(p, n, d):
    "Loss of n million parameters and d people: a floor and two powers"
    return p[0] + p[1]*n**-p[2] + p[3]*d**-p[4]

names = ('floor', 'size of the part of parameters', 'exponent of parameters', 'size of the part of people', 'exponent of people')
bounds = np.array([[0, 0, 0, 0, 0], [2, 5, 2, 5, 2]], float)

def fitted(n, d, loss, starts=None, fixed=()):
    "The five numbers that fit the log of the losses best, and the squared error; those in `fixed` (number → value) are given"
    fixed, best = dict(fixed), None
    free = [i for i in range(5) if i not in fixed]
    def whole(q):
        p = np.zeros(5)
        p[free], p[list(fixed)] = q, list(fixed.values())
        return p
    off = lambda q: np.log(np.maximum(law(whole(q), n, d), 1e-9))-np.log(loss)
    if starts is None: starts = [(f*min(loss), .1, x, .3, y) for f in (.2, .9) for x in (.2, .8) for y in (.2, .8)]
    for s in starts:
        q = least_squares(off, np.clip(np.array(s)[free], *(bounds[:,free]+[[1e-9], [-1e-9]])), bounds=bounds[:,free])
        if best is None or q.cost<best.cost: best = q
    return whole(best.x), 2*best.cost

def profile(n, d, loss, i, p, error):
    "Least and largest value of number i at which the fit is not significantly worse; the bounds where nothing stops it"
    from scipy.stats import f
    limit = error*(1+f.ppf(.95, 1, len(loss)-5)/(len(loss)-5))
    grid = np.linspace(*bounds[:,i], 81) if i in (2, 4) else np.linspace(0, min(loss), 81)
    ok = [v for v in grid if fitted(n, d, loss, [p], {i: v})[1]<=limit]
    return (min([*ok, p[i]]), max([*ok, p[i]]))

def resampled(t, draws, seed=0):
    "Mean losses of the cells with people drawn anew within each set, and a seed drawn where there are two [draw, cell]"
    rng, cells = np.random.default_rng(seed), t.groupby(['size', 'share', 'seed'], sort=False)
    first = t[t['seed'].eq(0)]
    wide = {k: g.set_index('subject')['loss'] for k,g in cells}
    who = first.drop_duplicates('subject')
    sets_of = [g['subject'].to_numpy() for _,g in who.groupby('cohort')]
    keys, out = [*dict.fromkeys((s, n) for s,n,_ in wide)], []
    for _ in range(draws):
        chosen = np.concatenate([rng.choice(o, len(o)) for o in sets_of])
        seeds = {k: rng.choice([s for a,b,s in wide if (a, b)==k]) for k in keys}
        out.append([wide[*k, seeds[k]].loc[chosen].mean() for k in keys])
    return keys, np.array(out)

def cells_of(people):
    "Mean loss of each size and amount at the full number of steps, seeds together: frame of cells, and rows of people"
    t = people[people['steps']==people['steps'].max()]
    cells = t.groupby(['size', 'share'], sort=False).agg(parameters=('parameters', 'first'), people=('people', 'first'),
                                                         loss=('loss', 'mean'), seeds=('seed', 'nunique'))
    return cells.reset_index(), t

def law_rows(people, draws):
    "Rows of the fit, each with its interval over people and seeds and the one of its profile, and what it foretells"
    cells, t = cells_of(people)
    n, d, loss = cells['parameters'].to_numpy()/1e6, cells['people'].to_numpy(float), cells['loss'].to_numpy()
    p, error = fitted(n, d, loss)
    keys, drawn_losses = resampled(t, draws)
    order = [keys.index(o) for o in zip(cells['size'], cells['share'], strict=True)]
    found = np.array([fitted(n, d, o[order], [p])[0] for o in drawn_losses])
    off = np.abs(law(p, n, d)/loss-1)
    rows = [(k, v, *np.percentile(found[:,i], [2.5, 97.5])) for i,(k,v) in enumerate(zip(names, p, strict=True))]
    if len(loss)>6: rows += [(f'{names[i]}, profile', p[i], *profile(n, d, loss, i, p, error)) for i in (0, 2, 4)]
    rows += [('largest distance of a cell from the law', off.max(), np.nan, np.nan)]
    holds = True
    if (inner := (n<n.max())&(d<d.max())).sum()>5:
        q, at = fitted(n[inner], d[inner], loss[inner])[0], (n.max(), d.max())
        both = [law(fitted(n[inner], d[inner], o[order][inner], [q])[0], *at) for o in drawn_losses[:100]]
        rows += [('largest cell, foretold by the smaller ones', law(q, *at), *np.percentile(both, [2.5, 97.5])),
                 ('largest cell, found', loss[(n==n.max())&(d==d.max())][0], np.nan, np.nan)]
        holds = rows[-2][2]<=rows[-1][1]<=rows[-2][3]
    if not holds: return pd.DataFrame(rows, columns=['what', 'value', 'low', 'high'])   # a law that fails foretells nothing
    for words,more in (('ten times the parameters', (10, 1)), ('ten times the people', (1, 10)), ('ten times both', (10, 10))):
        at = (n.max()*more[0], d.max()*more[1])
        rows.append((words, law(p, *at), *np.percentile([law(o, *at) for o in found], [2.5, 97.5])))
    return pd.DataFrame(rows, columns=['what', 'value', 'low', 'high'])

def frontier(runs, people):
    "Loss and operations of the trainings with everybody, and a power law of those that nothing cheaper beats"
    loss = people.groupby(['size', 'share', 'steps', 'seed'])['loss'].mean().rename('loss').reset_index()
    t = runs.merge(loss).query('share==1 and seed==0').sort_values('flop')
    t = t.assign(best=t['loss']<=t['loss'].cummin())
    b = t[t['best']]
    slope, first = np.polyfit(np.log(b['flop']), np.log(b['loss']), 1) if len(b)>2 else (np.nan, np.nan)
    return t, slope, first

def steps_up(people):
    "Verdicts of each size beside the next smaller one and of each amount beside the next smaller, all one family"
    t = people[people['steps']==people['steps'].max()]                      # the mean of two seeds where there are two
    wide = t.pivot_table(index='subject', columns=['size', 'share'], values='loss')
    here = [s for s in sizes if s in set(t['size'])]
    pairs = [((b, n), (a, n)) for n in sorted(set(t['share'])) for a,b in zip(here, here[1:], strict=False)]
    amounts = sorted(set(t['share']))
    pairs += [((s, b), (s, a)) for s in here for a,b in zip(amounts, amounts[1:], strict=False)]
    pairs = [o for o in pairs if all(k in wide for k in o)]
    found = verdicts({o: (wide[o[0]]-wide[o[1]]).to_numpy() for o in pairs}, '', measure, lower_is_better=True)
    return list(zip(pairs, found, strict=True))

def beside_rival(a, people, word):
    "The best network of all people beside the Gaussian: values, verdict, names of ours"
    gauss = pd.read_csv(a.work/'rival.tsv', sep='\t').set_index('subject')['loss']
    t = people[(people['steps']==people['steps'].max()) & people['share'].eq(1)]
    wide = t.pivot_table(index='subject', columns='size', values='loss').loc[gauss.index]
    best = wide.mean().idxmin()
    name, other = word(best, 1.), 'Gaussian of all training people'
    values = {k: (v.mean(), *mean_interval(v.to_numpy()), len(v)) for k,v in ((name, wide[best]), (other, gauss))}
    found = verdicts({other: (wide[best]-gauss).to_numpy()}, name, measure, lower_is_better=True)
    return pd.DataFrame(values, ['value', 'low', 'high', 'n']).T, found, [name]

def table(a):
    "The table of results"
    people, runs = (pd.read_csv(a.work/f'{o}.tsv', sep='\t') for o in ('people', 'runs'))
    amount = dict(zip(people['share'], people['people'], strict=True))
    most = people['steps'].max()
    def word(s, n, steps=most, seed=0): return f'{s}, {amount[n]} people, {steps} steps'+f', seed {seed}'*(seed>0)
    kind = 'simulated' if a.toy else 'real'
    facts = dict(data='made up' if a.toy else data, metric=measure, kind=kind)
    rows, values = [], {}
    for (s,n,k,seed),g in people.groupby(['size', 'share', 'steps', 'seed'], sort=False):
        values[word(s, n, k, seed)] = (g['loss'].mean(), *mean_interval(g['loss'].to_numpy()), len(g))
    found = [replace(v, mine=word(*one), rival=word(*two)) for (one,two),v in steps_up(people)]
    t = pd.DataFrame(values, ['value', 'low', 'high', 'n']).T
    rows.append(result_rows(t, found, list(t.index), task=task, **facts))
    rows.append(result_rows(*beside_rival(a, people, word), **facts, task=task))
    t, slope, first = frontier(runs, people)
    for o in runs.itertuples():
        for what,v in (('million parameters', o.parameters/1e6), ('PFLOP of matrix products', o.flop/1e15), ('loss in training', o.train_loss)):
            one = pd.DataFrame(dict(value=[v]), index=[word(o.size, o.share, o.steps, o.seed)])
            rows.append(result_rows(one, (), list(one.index), **facts | dict(task=task, metric=what)))
    power = law_rows(people, a.draws)
    power.loc[len(power)] = ('exponent of operations, cheapest trainings', -slope, np.nan, np.nan)
    for o in power.itertuples():
        one = pd.DataFrame(dict(value=[o.value], low=[o.low], high=[o.high], n=[people['subject'].nunique()]), index=['law'])
        rows.append(result_rows(one, (), ['law'], **facts | dict(task='floor + a/parameters^x + b/people^y', metric=o.what)))
    a.out.unlink(missing_ok=True)
    keep_results(a.out, pd.concat(rows), 'python tools/scaling_law.py', date=runs['date'].iloc[0])
    print(power.round(4).to_string(index=False))
    print(read_kept(a.out).query("rival!=''")[['model', 'rival', 'difference', 'difference_low', 'difference_high', 'p_family', 'says']].to_string())
    print(t[['size', 'steps', 'flop', 'loss', 'best']].to_string())

def trial(a):
    "A law that was put in is found; trainings and table at toy size"
    n, d = (o.ravel() for o in np.meshgrid([.2, .6, 3, 13], [6, 19, 75, 294]))
    truth = np.array([.3, .2, .5, .6, .7])
    p, error = fitted(n, d, law(truth, n, d))
    assert np.allclose(p, truth, atol=.02) and error<1e-6, f'fitted: found {p.round(3)}, expected {truth}'
    a.toy, a.steps, a.draws = True, a.steps or 16, 4
    a.sizes, a.shares, a.sets, a.n_masks = ('nano', 'tiny'), (1/4, 1.), ('toy', 'toys'), 64
    a.shape, a.out = dict(layers=1, decoder_layers=1), a.work/'scaling_law.tsv'
    run(a)
    rival(a)
    table(a)
    if not a.cuda: print('**No CUDA card is used here: a check of the script at toy size. None of its numbers is a result.**')

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'rival', 'table', 'trial'])
    p.add_argument('--work', type=Path, required=True, help='folder of people.tsv and runs.tsv')
    p.add_argument('--data', type=Path, nargs='+', default=[root/'.gpu'/'first', root/'.gpu'/'second'], help='folders of packed sets')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'scaling_law.tsv', help='the table of results')
    p.add_argument('--seconds', type=float, default=240, help='for all trainings, from the start of the script')
    p.add_argument('--steps', type=int, default=0, help='of each training; 0: what the time allows')
    p.add_argument('--part', type=float, default=.5, help='of the time, for the first training of each size and amount')
    p.add_argument('--sizes', nargs='+', default=sizes, choices=sizes)
    p.add_argument('--shares', nargs='+', type=float, default=shares, help='of the training people')
    p.add_argument('--sets', nargs='+', default=tuple(sets), choices=sets)
    p.add_argument('--draws', type=int, default=400, help='of people and seeds, for the intervals of the law')
    a = p.parse_args(argv)
    a.cuda, a.toy, a.until = torch.cuda.is_available(), False, time.time()+a.seconds
    a.device, a.shape, a.n_masks = 'cuda' if a.cuda else 'cpu', {}, 1024
    a.work.mkdir(parents=True, exist_ok=True)
    dict(run=run, rival=rival, table=table, trial=trial)[a.what](a)

if __name__=='__main__': main()
