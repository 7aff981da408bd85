"""What each readout of a frozen network says of people, beside its untrained twin and beside the same readout of the raw series.

A network learns, unlabelled, from people of whom nobody is judged; its twin has the same first weights and the same prior. Every pooling of
`brainlm.poolings` is read from both, and from patches of the signal in the place of tokens (correlations in the place of attention). Poolings
learn what they must from the people of the network. Steps, in pieces that are kept and not made again:

    planted    300 simulated people, 80 others: age, sex, GAD-7 (effects in correlations)
    hidden     400 simulated people for each effect that correlations do not show, the network of `planted`; beside the reader made for it
    abide      age within a site and at a site left out; the network learns from the other sites
    autism     autism against control within a site: readouts, and contrasts of attention link by link
    depression likewise in each half of the depression set; the network learns from the other half
    larger     age within a site from the tokens of `brainlm-small`, and of the folder hcp_tiny in --work, a network of HCP by tools/scaling.py
    identity   37 people of the psychosis set three months apart, from 10 to 234 frames; all that learns learns from 18 others
    outcomes   change of symptoms in the psychosis set, five folds, a network for each
    short      identification from 10 to 230 frames as they are, filled in by the prior, by the network
    ages       age in ABIDE from 30, 60 and 180 frames, likewise
    vector     a readout trained so that two stretches of one person agree, or as whole recordings do, or not at all
    tuned      age in ABIDE within a site, five folds: fine-tuned, frozen, not trained, beside correlations and the whitened embedding
    rows       all of it to nbs/results/readouts.tsv, by the one rule

    python tools/person_readouts.py identity short rows [--work runs/person_readouts] [--cores 14] [--until 110]
    python tools/person_readouts.py pack                     # the real recordings for a machine without them: --pack FOLDER there
"""
import argparse
import lzma
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelFitException
from torch import nn

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

import brainlm.mixture  # noqa: F401, networks on other atlases: `BrainLM.on`
from brainlm.atlas import Parcellation
from brainlm.basics import write_whole
from brainlm.beyond import time_readers
from brainlm.clinical import nested_cv, outer_folds
from brainlm.datasets import fetch_abide, fetch_depression, fetch_psychosis
from brainlm.evidence import keep_results, result_rows
from brainlm.finetuning import finetune_learner
from brainlm.masking import unpatchify
from brainlm.metrics import prediction_scores, scaled_recordings
from brainlm.model import BrainLM, preset
from brainlm.patients import identified, score_shares
from brainlm.poolings import CovariancePooling, SizedPower, pairs_of, poolings, token_course, whitener
from brainlm.pretraining import Training, pretrain_learner
from brainlm.prior import SpaceTimePrior
from brainlm.readouts import Flat, PersonEmbedding, PersonReader
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.simulation import EFFECTS, HIDDEN, simulate_cohort
from brainlm.stats import mean_interval, verdicts

read = ['cls', 'mean', 'covariance', 'whitened', 'maps', 'maps_whitened']
closed = ('whitened embedding', 'raw')                                      # `PersonEmbedding` of all frames
command = 'python tools/person_readouts.py'

# Recordings, and what is kept of each piece

known_data, fetchers = {}, dict(abide=fetch_abide, psychosis=fetch_psychosis, depression=fetch_depression)

def data(a, name):
    "Recordings and parcellation of a data set, from a pack where there is one"
    if name not in known_data: known_data[name] = unpacked(a.pack/f'{name}.xz') if a.pack else fetchers[name]()
    return known_data[name]

def pack(a):
    "Recordings in steps of a fiftieth of each parcel's SD, small enough to carry"
    (a.work/'pack').mkdir(exist_ok=True)
    for name in fetchers:
        if (file := a.work/'pack'/f'{name}.xz').exists(): continue
        d, out = data(a, name), []
        for r in d.recordings:
            scale = np.nan_to_num(np.nanstd(r.signal, 0)).astype('float32')
            q = np.rint(np.nan_to_num(r.signal-r.signal[:1])/np.where(scale>0, scale, 1)/.02).astype('int32')
            change = np.diff(np.vstack([np.zeros((2, q.shape[1]), 'int32'), q]), 2, axis=0).astype('int16')
            out.append(dict(change=change.T.tobytes(), shape=change.shape, scale=scale, dt_s=r.dt_s, subject=r.subject, session=r.session, covariates=r.covariates))
        write_whole(file, lzma.compress(pickle.dumps(dict(recordings=out, table=d.parcellation.table, name=d.parcellation.name))))

def unpacked(file):
    "The recordings of a pack"
    d, out = pickle.loads(lzma.decompress(file.read_bytes())), []
    for o in d['recordings']:
        n, p = o['shape']
        x = np.frombuffer(o['change'], 'int16').reshape(p, n).T.astype('int64').cumsum(0).cumsum(0)*.02*np.where(o['scale']>0, o['scale'], np.nan)
        out.append(Recording(x.astype('float32'), o['dt_s'], o['subject'], session=o['session'], task='rest', covariates=o['covariates']))
    return SimpleNamespace(recordings=out, parcellation=Parcellation.from_table(d['table'], d['name']))

def file_of(a, name, piece): return a.work/f'{name}-{piece}.csv'

def keep(a, name, piece, table):
    write_whole(file_of(a, name, piece), table.to_csv(index=False))
    print(name, piece, len(table), 'rows', f'{time.time()-a.begun:.0f} s', flush=True)

def there(a, name):
    "All pieces that are there, as one table; None where there is none"
    files = sorted(a.work.glob(f'{name}-*.csv'))
    return pd.concat([pd.read_csv(f, dtype=dict(subject=str)) for f in files], ignore_index=True) if files else None

# A network, its twin, and the raw series in their place

class Raw:
    "Patches of the signal as tokens, correlations as attention"
    def __init__(self, config):
        self.config = SimpleNamespace(n_parcels=config.n_parcels, patch_size=config.patch_size, layers=1,
                                      width=config.patch_size, attention='joint')
    def encode(self, x, valid=None):
        t = x.unflatten(2, (-1, self.config.patch_size))
        return (t if valid is None else t.masked_fill(~valid[...,None], torch.nan)), None
    def encode_cls(self, x, valid=None): return self.encode(x, valid)[0].flatten(1, 2).nanmean(1)
    def attention_maps(self, x, valid=None):
        z = F.normalize(x-x.mean(2, keepdim=True), dim=2)
        return F.pad((z@z.mT/x.shape[1])[:,None,None], (1, 0, 1, 0))

class Once:
    "A network that reads the same windows once"
    def __init__(self, model): self.model, self.config, self.made = model, model.config, {}
    def once(self, what, x, valid):
        if (what, id(x)) not in self.made: self.made[what, id(x)] = x, getattr(self.model, what)(x, valid)
        return self.made[what, id(x)][1]
    def encode(self, x, valid=None): return self.once('encode', x, valid)
    def encode_cls(self, x, valid=None): return self.once('encode_cls', x, valid)
    def attention_maps(self, x, valid=None): return self.once('attention_maps', x, valid)

class StopAfter(Callback):
    "End a training after so many epochs, wherever its schedule is"
    order = 110                                                             # after the run folder has its checkpoint
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch+1>=self.n: raise CancelFitException

def network(a, name, store, rows, epochs, size, batch, stop=None, **shape):
    "What learns from `rows` of a store, with the weights of the prior as the recipe has them, and its twin"
    if not (a.work/name/'last').exists():
        words = np.full(len(store), 'none', object)
        words[rows] = 'train'
        config = preset(size, n_parcels=store.n_parcels, prior='space-time', **shape)
        scaler, prior = RobustScaler().fit(store, words), SpaceTimePrior(store.n_parcels)
        prior.fit(scaled_recordings(store, scaler, words), store.table['tr_s'].median(), patch_size=config.patch_size, choices=None)
        how = Training(batch_size=batch, progress=False, device='cpu')
        learn = pretrain_learner(store, config, a.work/name, words, scaler=scaler, prior=prior, training=how)
        if stop: learn.add_cb(StopAfter(stop))
        learn.pretrain(epochs, resume=True)
        learn.model.load_state_dict(torch.load(a.work/name/'checkpoint.pt', weights_only=True)['model'])
        learn.model.save_pretrained(a.work/name/'last')
    brain = BrainLM.from_pretrained(a.work/name/'last').eval()
    return brain, twin_of(brain)

def twin_of(brain):
    "The network as it began: first weights of the seed, the same prior"
    torch.manual_seed(0)
    blank = BrainLM(brain.config, brain.parcellation, brain.scaler)
    blank.load_state_dict({k: brain.state_dict()[k] if k.startswith('prior.') else v for k,v in blank.state_dict().items()})
    return blank.eval()

def batches(windows, size, n=16):
    "(signal, valid) of windows [parcel, time], NaN where missing"
    for i in range(0, len(windows), n):
        x = torch.from_numpy(np.stack(windows[i:i+n]).astype('float32'))
        there = x.isfinite().all(-1, keepdim=True)
        yield x.nan_to_num(), None if there.all() else there.expand(-1, -1, x.shape[2]//size)

@torch.no_grad()
def features(model, learn, people, n, scaler, known):
    "{pooling: [person, feature]}, means over windows of n frames; what was fitted is kept in `known`"
    def cut(X): return [(i, z[s:s+n].T) for i,z in enumerate(map(scaler.transform, X)) for s in range(0, len(z)-n+1, n)]
    windows, out, size, model = cut(people), {}, model.config.patch_size, Once(model)
    who, seen = np.array([i for i,_ in windows]), list(batches([w for _,w in windows], size))
    taught = [] if known else list(batches([w for _,w in cut(learn)], size))
    for k in read:
        if k not in known:
            known[k] = poolings[k](model.config)
            if known[k].fitted: known[k].fit(model, taught)
        made = torch.cat([known[k](model, *o) for o in seen]).numpy()
        out[k] = np.stack([np.nan_to_num(np.nanmean(made[who==i], 0)) for i in range(len(people))]).astype('float32')
    return out

def three(brain, blank, learn, people, n, known=None):
    "{(pooling, of what): [person, feature]}"
    known = {} if known is None else known
    sources = dict(trained=brain, untrained=blank, raw=Raw(brain.config))
    out = {(k, s): f for s,m in sources.items()
           for k,f in features(m, learn, people, n, brain.scaler, known.setdefault(s, {})).items()}
    e = PersonEmbedding().fit([brain.scaler.transform(x) for x in learn])
    return out | {closed: e.transform([brain.scaler.transform(x) for x in people])}

def predictions(made, y, who, target, classify=False, **how):
    "Out-of-fold predictions from each"
    parts = [nested_cv(f[:,None], y, who, lambda k=k: {'|'.join(k): PersonReader(Flat(), classify)}, target,
                       None if classify else 'zscore', classify=classify, **how) for k,f in made.items()]
    return pd.concat(parts, ignore_index=True)

def carried_over(made, y, who, learn, test, **facts):
    "Predictions for `test` from readers that learn from `learn`"
    said = {k: PersonReader(Flat()).fit(f[learn][:,None], y[learn], who[learn]).predict(f[test][:,None])
            for k,f in made.items()}
    return pd.concat([pd.DataFrame(dict(model='|'.join(k), subject=who[test], y=y[test], prediction=p, **facts))
                      for k,p in said.items()], ignore_index=True)

def made_once(a, name, make):
    "A store, made where it is not there, by one process"
    if not (a.work/name).exists():
        with tempfile.TemporaryDirectory(dir=a.work) as tmp:
            make(Path(tmp)/name)
            try: (Path(tmp)/name).rename(a.work/name)
            except OSError: pass                                            # another process was faster
    return RecordingStore(a.work/name)

def store_of(a, name, recordings, parcellation):
    return made_once(a, name, lambda to: RecordingStore.create(to, parcellation).extend(recordings))

def cohort(a, name, n, **how):
    return made_once(a, name, lambda to: simulate_cohort(to, n, 'aal2', progress=None, **how))

def series(store): return [store.read(i) for i in range(len(store))]

# Simulated people

effects = {k: v.size for k,v in EFFECTS.items() if k!='visual_task'}

def network_of_simulated(a):
    "The network of 80 simulated people, and these"
    others = cohort(a, 'lin_others', 80, n_time=200, effects=effects, seed=11)
    return *network(a, 'lin_net', others, range(80), 6, 'tiny', 8), series(others)

def planted(a, piece):
    "Effects in correlations"
    people = cohort(a, 'lin', 300, n_time=200, effects=effects, seed=12)
    brain, blank, learn = network_of_simulated(a)
    made, t = three(brain, blank, learn, series(people), 200), people.table
    labels = dict(age=t['age'].to_numpy(float), sex=(t['sex']=='F').to_numpy(int), gad7=t['gad7'].to_numpy(float))
    keep(a, 'lin', piece, pd.concat([predictions(made, y, t['subject'].to_numpy(), k, k=='sex') for k,y in labels.items()]))

shown_by = dict(switching='spread over windows, networks', flow='direction at lag 3, networks', nonlinear='co-skewness', spectrum='band power', haemodynamics='band power')

def hidden(a, name):
    "An effect that correlations do not show, read by the network of `planted`, which has seen none of them"
    c = cohort(a, f'hid_{name}', a.people, n_time=200, effects={}, hidden={name: .8})
    while a.pool and not (a.work/'lin_net'/'last').exists(): time.sleep(1)  # another process makes it
    brain, blank, learn = network_of_simulated(a)
    y, X, who = c.table['age' if HIDDEN[name].label=='age' else name].to_numpy(float), series(c), c.table['subject'].to_numpy()
    made_for = time_readers(c.parcellation, c.table['tr_s'].iloc[0])[shown_by[name]]
    meant = nested_cv([*X], y, who, lambda: {f'{shown_by[name]}|made for it': made_for}, name, 'zscore')
    keep(a, 'hidden', name, pd.concat([predictions(three(brain, blank, learn, X, 200), y, who, name), meant]))

# Real people

sites = 'PITT', 'OLIN'                                                      # Portland has ten boys of 8 to 15

def site_of(a, s):
    "People of ABIDE: signals, names, who is at the site, a table, the network of the other sites and its twin"
    d = data(a, 'abide')
    t, who = pd.DataFrame([r.covariates for r in d.recordings]), np.array([r.subject for r in d.recordings])
    here, store = (t['site']==s).to_numpy(), store_of(a, 'abide', d.recordings, d.parcellation)
    nets = network(a, f'abide_{s}', store, np.flatnonzero(~here), 2, 'nano', 4, n_time=60, patch_size=5)
    return SimpleNamespace(X=[r.signal for r in d.recordings], who=who, here=np.flatnonzero(here), learn=np.flatnonzero(~here), table=t, nets=nets, store=store)

def abide(a, s):
    "Age within a site and at a site left out"
    o = site_of(a, s)
    made, age = three(*o.nets, [o.X[i] for i in o.learn], o.X, 60), o.table['age'].to_numpy()
    keep(a, 'abide_left', s, carried_over(made, age, o.who, o.learn, o.here, target='age, site left out', fold=sites.index(s)))
    own = {k: f[o.here] for k,f in made.items()}
    keep(a, 'abide_within', s, pd.concat([predictions(own, age[o.here], o.who[o.here], 'age within a site', seed=k).assign(split=k, site=s) for k in range(2)]))

def autism(a, s):
    "Autism against control within a site: readouts, and where attention differs"
    o = site_of(a, s)
    made, y = three(*o.nets, [o.X[i] for i in o.learn], [o.X[i] for i in o.here], 60), (o.table['diagnosis']=='autism').to_numpy(int)[o.here]
    keep(a, 'contrast', s, pd.DataFrame([dict(site=s, of=source, **contrast(made['maps', source], y)) for source in ('trained', 'untrained', 'raw')]))
    keep(a, 'autism', s, pd.concat([predictions(made, y, o.who[o.here], 'autism', True, seed=k).assign(split=k, site=s) for k in range(2)]))

def depression(a, k):
    "Depression against control in one half, by a network of the other half"
    d = data(a, 'depression')
    X, who = [r.signal for r in d.recordings], np.array([r.subject for r in d.recordings])
    y = np.array([r.covariates['diagnosis']=='depression' for r in d.recordings])*1
    half = outer_folds(who, y, 2, classify=True)
    learn, test = np.flatnonzero(half!=k), np.flatnonzero(half==k)
    nets = network(a, f'dep_{k}', store_of(a, 'dep', d.recordings, d.parcellation), learn, 2, 'nano', 4, n_time=60, patch_size=5)
    made, told = three(*nets, [X[i] for i in learn], [X[i] for i in test], 60), dict(site=f'half {k+1}', asked='depression against control')
    keep(a, 'contrast', f'dep{k}', pd.DataFrame([dict(told, of=source, **contrast(made['maps', source], y[test])) for source in ('trained', 'untrained', 'raw')]))
    keep(a, 'depression', k, pd.concat([predictions(made, y[test], who[test], 'depression', True, seed=i).assign(split=i, site=told['site']) for i in range(2)]))

def larger(a, piece):
    "Age within a site, by networks that have learnt for longer from nobody of ABIDE: the one that is shipped, and a `tiny` one"
    name, s = piece.split('-')
    o, source = site_of(a, s), 'brainlm-small' if name=='small' else a.work/'hcp_tiny'/'last'
    brain = BrainLM.from_pretrained(source).on(o.store.parcellation, o.nets[0].scaler, o.nets[0].prior).eval()
    made, age = three(brain, twin_of(brain), [o.X[i] for i in o.learn], [o.X[i] for i in o.here], 180), o.table['age'].to_numpy()[o.here]
    told = dict(site=s, network=name)
    keep(a, 'larger', piece, pd.concat([predictions(made, age, o.who[o.here], 'age', seed=k).assign(split=k, **told) for k in range(2)]))

def contrast(F, y, n=1000):
    "Links that differ between two groups: largest |t| and mean t², each beside shuffled labels"
    rng, z = np.random.default_rng(0), (F-F.mean(0))/np.where(F.std(0)>0, F.std(0), 1)
    labels = np.stack([y, *(rng.permutation(y) for _ in range(n))]).astype('float32')
    labels -= labels.mean(1, keepdims=True)
    r = labels@z.astype('float32')/np.sqrt((labels**2).sum(1, keepdims=True)*len(y))
    t = r*np.sqrt((len(y)-2)/np.clip(1-r**2, 1e-6, None))
    said = dict(largest=np.abs(t).max(1), spread=(t**2).mean(1))
    return {k: float(v[0]) for k,v in said.items()} | {f'p_{k}': float((v>=v[0]).mean()) for k,v in said.items()} | dict(links=F.shape[1], n=len(y))

def twice_seen(a):
    "Names of those who came twice, their scans of each session, and scans of the others"
    d = data(a, 'psychosis')
    at = {s: {r.subject: r for r in d.recordings if r.session==s} for s in '12'}
    twice = [k for k in at['1'] if k in at['2']]
    return twice, [[at[s][k].signal for k in twice] for s in '12'], [r for k,r in at['1'].items() if k not in twice], d

def network_of_others(a):
    "The network that has seen the 18 who came once"
    others, d = twice_seen(a)[2:]
    return network(a, 'psy18_net', store_of(a, 'psy18', others, d.parcellation), range(18), 6, 'nano', 2, stop=3, n_time=60, patch_size=5)

def identity(a, n):
    "Who is found again"
    twice, (first, second), others, _ = twice_seen(a)
    made = three(*network_of_others(a), [r.signal[:180] for r in others], [x[:n] for x in first+second], min(n, 60))
    rows = [pd.DataFrame(dict(model='|'.join(k), frames=n, subject=twice, found=identified(f[:37], f[37:]))) for k,f in made.items()]
    keep(a, 'psyid', n, pd.concat(rows))

changes = 'bprs_change_6m', 'bprs_change_12m', 'sofas_change_6m', 'sofas_change_12m'

def outcomes(a, k):
    "Change of symptoms and functioning, one fold"
    d = data(a, 'psychosis')
    R = [r for r in d.recordings if r.session=='1']
    store, X, who = store_of(a, 'psy55', R, d.parcellation), [r.signal for r in R], np.array([r.subject for r in R])
    known, fold, parts = pd.DataFrame([r.covariates for r in R]), outer_folds(who), []
    learn = np.flatnonzero(fold!=k)
    nets = network(a, f'psy55_{k}', store, learn, 2, 'nano', 2, n_time=60, patch_size=5)
    made = three(*nets, [X[i][:120] for i in learn], X, 60)
    for c in changes:
        y = known[c].to_numpy(float)
        told = ~np.isnan(y)
        parts.append(carried_over(made, y, who, np.flatnonzero(told & (fold!=k)), np.flatnonzero(told & (fold==k)), target=c, fold=k))
    keep(a, 'psyout', k, pd.concat(parts))

# Frames guessed from others

@torch.no_grad()
def guessed(model, X, n, k, seed=0):
    "Piece k of n frames [piece][time, parcel], as it is, and each patch from the other half of them, by prior and by network"
    if n>(longest := model.config.n_time):                                  # by windows, in whole patches
        size = model.config.patch_size
        parts = [(i, min(longest, (n-i)//size*size)) for i in range(k*n, (k+1)*n-size+1, longest)]
        some = [guessed(model, [x[i:i+m] for x in X], m, 0, seed+i) for i,m in parts]
        return {name: np.concatenate([o[name] for o in some], 1) for name in some[0]}
    z = torch.from_numpy(np.stack([model.scaler.transform(x)[k*n:(k+1)*n] for x in X]).astype('float32')).mT
    size, draw, out = model.config.patch_size, torch.Generator().manual_seed(seed), dict(raw=[], prior=[], network=[])
    there = z.isfinite().all(2, keepdim=True)
    for q,t in zip(z.nan_to_num().split(8), there.split(8)):
        p = q.unflatten(2, (-1, size))
        h = torch.rand(p.shape[:3], generator=draw)<.5
        v = t.expand(p.shape[:3])
        m = h.repeat_interleave(size, 2)
        prior = [model.prior.guess(torch.where(o[...,None] | ~v[...,None], 0, p), ~o & v) for o in (h, ~h)]
        net = [unpatchify(model(q, mask=o, valid=v).prediction) for o in (h, ~h)]
        for name,(x,y) in dict(prior=prior, network=net).items():
            out[name].append(torch.where(t, torch.where(m, x, y), torch.nan))
        out['raw'].append(torch.where(t, q, torch.nan))
    return {name: torch.cat(o).mT.numpy() for name,o in out.items()}

pieces = {15: 2, 10: 1, 30: 2, 60: 1, 234: 1}                               # frames: pieces of each session that are guessed and looked for
shares_tried, powers, ridges = (.25, .5), (.15, .35), (.03, .1, .3)

def groups_of(n): return [('others', min(4, 234//n)), *((o, pieces[n]) for o in '12')]

def scans_of(a, group):
    "Signals of the 18 others, or of a session of the 37"
    _, sessions, others, _ = twice_seen(a)
    return [r.signal for r in others] if group=='others' else sessions[int(group)-1]

def guess(a, piece):
    "Pieces of n frames as they are and guessed, kept on disk"
    n, group, k = piece.split('-')
    (a.work/'guesses').mkdir(exist_ok=True)
    made = guessed(network_of_others(a)[0], scans_of(a, group), int(n), int(k))
    write_whole(a.work/'guesses'/f'{piece}.npz', lambda part: np.savez(Path(part).open('wb'), **made))

def guesses(a, n, group, m):
    "{source: [piece][person]}; what another process makes is waited for"
    out = dict(raw=[], prior=[], network=[])
    for k in range(m):
        file = a.work/'guesses'/f'{n}-{group}-{k}.npz'
        while a.pool and not file.exists(): time.sleep(.5)
        if not file.exists(): guess(a, file.stem)
        for o,f in np.load(file).items(): out[o].append(f)
    return out

def mixed(made, source, share): return made['raw'] if source=='raw' else [(1-share)*r+share*g for r,g in zip(made['raw'], made[source])]

def apart(e, one, two):
    "How far a person's other piece lies above those of others, in their SD [person]"
    f, g = (o-o.mean(1, keepdims=True) for o in (e.transform([*one]), e.transform([*two])))
    like = (f/np.linalg.norm(f, axis=1, keepdims=True))@(g/np.linalg.norm(g, axis=1, keepdims=True)).T
    own, other = like.diagonal(), np.ma.masked_array(like, np.eye(len(like), dtype=bool))
    return np.asarray((own-other.mean(1))/other.std(1))

def settings_of(source):
    "What may be chosen: share of what was guessed, power, ridge"
    return [(s, p, r) for s in ((0.,) if source=='raw' else shares_tried) for p in powers for r in ridges]

def chosen_for(source, made, whole):
    "The settings that tell half of the others apart best when the other half has taught, and their mean distance"
    half, said = len(made['raw'][0])//2, {}
    for about in settings_of(source):
        P = mixed(made, source, about[0])[:4]
        gap = max(1, len(P)//2)
        for learn,test in ((range(half), range(half, 2*half)), (range(half, 2*half), range(half))):
            e = PersonEmbedding(power=about[1], ridge=about[2]).fit([whole[i] for i in learn])
            for i in range(len(P)-gap): said.setdefault(about, []).append(apart(e, P[i][test], P[i+gap][test]).mean())
    return max(said, key=lambda k: np.mean(said[k]))

def short(a, n):
    "Identification from short pieces: as they are, filled in by the prior, and by the network; settings are those that tell 18 others apart"
    twice, brain, rows = twice_seen(a)[0], network_of_others(a)[0], []
    whole = [brain.scaler.transform(x) for x in scans_of(a, 'others')]
    made, *both = [guesses(a, n, *o) for o in groups_of(n)]
    if len(made['raw'])<2: made = guesses(a, 60, *groups_of(60)[0])        # whole recordings: settings of 60 frames
    ways = {'as they are, settings of the default': ('raw', (0., .35, .3))} | {words[o]: (o, chosen_for(o, made, whole)) for o in words}
    ways[alike] = 'raw', ways[words['network']][1]                          # powers and ridges differ in how far they set people apart
    for name,(source,about) in ways.items():
        e = PersonEmbedding(power=about[1], ridge=about[2]).fit(whole)
        first, second = (mixed(o, source, about[0]) for o in both)
        found = [identified(e.transform([*x]), e.transform([*y])) for x,y in zip(first, second)]
        margin = np.mean([apart(e, x, y) for x,y in zip(first, second)], 0)
        rows.append(pd.DataFrame(dict(model=name, setting=str(about), frames=n, subject=twice, found=np.mean(found, 0), first=found[0], margin=margin)))
    keep(a, 'psyden', n, pd.concat(rows))

alike = 'as they are, settings of the network'
words = dict(raw='as they are', prior='filled in by the prior', network='filled in by the network')

def ages(a, piece):
    "Age within a site from the first frames, guessed by networks of the other sites"
    n, s = piece.split('-')
    o, rows = site_of(a, s), []
    made, age, who = guessed(o.nets[0], [o.X[i] for i in o.here], int(n), 0), o.table['age'].to_numpy()[o.here], o.who[o.here]
    for source,share in (('raw', 0.), ('prior', .5), ('network', .5)):
        reader = lambda source=source: {words[source]: PersonReader(PersonEmbedding())}
        rows += [nested_cv([*mixed_one(made, source, share)], age, who, reader, f'{n} frames', 'zscore', seed=k).assign(split=k, site=s) for k in range(3)]
    keep(a, 'abideden', piece, pd.concat(rows))

def mixed_one(made, source, share): return (1-share)*made['raw']+share*made[source]

# A vector of the person that is trained

class PersonVector(nn.Module):
    "The whitened readout of decoded tokens, every part of which may learn"
    def __init__(self, model, learn):
        super().__init__()
        self.model, pool = model, CovariancePooling(model.config)
        x = torch.from_numpy(np.stack([o[:,s:s+60] for o in learn for s in (0, 60, 120)]))
        with torch.no_grad():
            pool.fit(model, [(b, None) for b in x.split(8)])
            y = torch.cat([(token_course(model.encode(b)[0].float())@pool.decode).flatten(2) for b in x.split(8)])
            scale = y.square().sum(-1).sqrt().log().mean(0).exp()
            u = scaled(y, scale)
            first = pool.decode, scale, whitener((u@u.mT/u.shape[-1]).mean(0), .3)
        self.decode, self.scale, self.whiten = (nn.Parameter(o.clone()) for o in first)
    def forward(self, x):
        y = self.whiten@scaled((token_course(self.model.encode(x)[0])@self.decode).flatten(2), self.scale)
        y, n = y/y.square().mean((1, 2), keepdim=True).sqrt(), y.shape[2]
        G = SizedPower.apply(y.mT@y/n+1e-4*torch.eye(n), -.65)              # of samples, in the place of parcels
        E = pairs_of(y@G@y.mT/n)
        return F.normalize(E-E.mean(1, keepdim=True), dim=1)

def scaled(y, scale):
    z = y/scale[:,None]
    return z/z.square().mean(-1).median(1).values.sqrt()[:,None,None]

def drawn(pairs, who, rng, n):
    "Two stretches of n frames of each person: of two sessions, or of the two halves of one"
    out = []
    for side in (0, 1):
        for i in who:
            one = pairs[i][0] is pairs[i][1]
            start = rng.integers(side*117, side*117+117-n) if one else rng.integers(0, 234-n)
            out.append(pairs[i][side][:,start:start+n])
    return torch.from_numpy(np.stack(out))

def loss_of(how, f, alike):
    "Of two stretches of ten people: who is who, or as alike as whole recordings say"
    n = len(f)//2
    if how=='identity':
        sim, right = f[:n]@f[n:].T/.05, torch.arange(n)
        return (F.cross_entropy(sim, right)+F.cross_entropy(sim.T, right))/2
    H = torch.eye(n)-1/n
    x, y = H@(f[:n]@f[n:].T)@H, H@alike@H
    return 1-(x*y).sum()/x.norm()/y.norm()

def trained_vector(v, how, pairs, alike, steps, n=15):
    "Steps are fixed beforehand"
    rng, own = np.random.default_rng(0), [dict(params=[v.decode, v.scale, v.whiten], lr=1e-3)]
    if isinstance(v.model, nn.Module): own.append(dict(params=[*v.model.encoder.parameters(), *v.model.embed.parameters()], lr=3e-4))
    opt = torch.optim.AdamW(own, weight_decay=0)
    for _ in range(0 if how=='neither' else steps):
        who = rng.choice(len(pairs), 10, replace=False)
        loss = loss_of(how, v(drawn(pairs, who, rng, n)), alike[who][:,who])
        opt.zero_grad()
        loss.backward()
        opt.step()
    return v

def vector(a, piece, n=15):
    "Half of the 37 and the 18 others teach, the other half is looked for"
    fold, source, how = piece.split('-')
    twice, sessions, others, _ = twice_seen(a)
    net = network_of_others(a)[0]
    z = [[net.scaler.transform(x).T.astype('float32') for x in s] for s in sessions]
    once = [net.scaler.transform(r.signal).T.astype('float32') for r in others]
    test = np.flatnonzero(np.arange(len(twice))%2==int(fold))
    pairs = [(z[0][i], z[1][i]) for i in range(len(twice)) if i not in test]+[(o, o) for o in once]
    person = PersonEmbedding()
    alike = torch.from_numpy(np.corrcoef(person.fit_transform([np.concatenate(o, 1).T for o in pairs]))).float()
    if how=='closed': embed = lambda x: person.transform([o.T for o in x])
    else:
        torch.manual_seed(0)
        v = trained_vector(PersonVector(net if source=='network' else Raw(net.config), [o for o,_ in pairs]), how, pairs, alike, a.steps_of_vector)
        embed = lambda x: v(torch.from_numpy(x)).detach().numpy()
    found = np.mean([identified(*(embed(np.stack([s[i][:,k*n:(k+1)*n] for i in test])) for s in z)) for k in range(8)], 0)
    keep(a, 'psyvec', piece, pd.DataFrame(dict(model=f'{how}|{source}', subject=np.array(twice)[test], found=found)))

# Fine-tuned

rates = dict(none=(1e-3,), lora=(1e-3, 1e-4), all=(1e-5, 1e-6))
tuned_ways = {'frozen|trained': 'none', 'frozen|untrained': 'none', 'LoRA|trained': 'lora', 'all weights|trained': 'all',
              'LoRA|untrained': 'lora', 'all weights|untrained': 'all'}
closed_ways = {'FC and ridge': PersonEmbedding('fc'), 'whitened embedding and ridge': PersonEmbedding()}

def tuned(a, piece):
    "What a way says of the test people of a fold within a site; the head begins with a ridge; an eighth of those who train is there to stop on"
    s, k, way, rate = piece.split('-', 3)
    o = site_of(a, s)
    fold = outer_folds(o.who[o.here])
    age, test, rest = o.table['age'].to_numpy(), o.here[fold==int(k)], o.here[fold!=int(k)]
    if way in closed_ways:
        m, loss = PersonReader(closed_ways[way]).fit([o.X[i] for i in rest], age[rest], o.who[rest]), 0.
        best = -1                                                           # nothing was trained
        said = m.predict([o.X[i] for i in test])
    else: said, loss, best = from_tuned(a, o, way, float(rate), age, test, rest)
    told = dict(model=way, rate=float(rate), loss=loss, best_epoch=best, site=s, fold=int(k))
    keep(a, 'tuned', piece, pd.DataFrame(dict(told, subject=o.who[test], y=age[test], prediction=said)))

def from_tuned(a, o, way, rate, age, test, rest):
    sides = np.full(len(age), 'none', object)
    sides[rest], sides[test] = 'train', 'test'
    sides[np.random.default_rng(0).permutation(rest)[:max(3, len(rest)//8)]] = 'valid'
    model, how = o.nets[way.endswith('|untrained')], Training(progress=False, device='cpu', patience=3)
    with tempfile.TemporaryDirectory() as tmp:
        learn = finetune_learner(o.store, model, age, f'{tmp}/run', sides, training=how, unfreeze=tuned_ways[way])
        if tuned_ways[way]!='none': learn.finetune(a.epochs, rate)
        best = learn.model.card.get('training', {}).get('epoch', -1)         # -1: the start, a ridge
        return learn.model.predict(o.store, test).prediction.to_numpy(), learn.run_folder.best or 0., best

# By the one rule

def shares(preds, metric):
    "Each person's share of r or AUC [person, model]"
    return score_shares(preds.assign(target='all'), metric)

def found_by(t, name='found'): return t.pivot_table(index='subject', columns='model', values=name)

def rivals_of(model):
    "What a readout is measured by: its twin, and the same readout of the raw series"
    k, source = model.split('|')
    return [f'{k}|{o}' for o in ('untrained', 'raw')] if source=='trained' else []

def in_words(model): return model.replace('|', ', ')

def verdicts_of(tables, pairs, measure):
    "{table: verdicts} over all pairs in all tables as one family"
    d = {(t, *p): tables[t][p[0]]-tables[t][p[1]] for t in tables for p in pairs if {*p} <= {*tables[t]}}
    said = dict(zip(d, verdicts({'|'.join(k): v.dropna() for k,v in d.items()}, 'it', measure)))
    return {t: [renamed(v, *k[1:]) for k,v in said.items() if k[0]==t] for t in tables}

def renamed(v, mine, rival):
    v.mine, v.rival = in_words(mine), in_words(rival)
    return v

def rows_of(tables, pairs, metric, data, kind, values=None, claim=''):
    "Rows to keep: tables {task: [person, model]}"
    said, out = verdicts_of(tables, pairs, metric), []
    for task,t in tables.items():
        v = values[task] if values else t.apply(lambda c: pd.Series([c.mean(), *mean_interval(c.to_numpy())], ['value', 'low', 'high'])).T
        v = v.rename(index=in_words).assign(n=len(t))
        roles = dict(ours=[m for m in v.index if m.endswith((', trained', ', network'))], controls=[m for m in v.index if m.endswith(', untrained')])
        out.append(result_rows(v, said[task], **roles, kind=kind, task=task, data=data, metric=metric, claim=claim))
    return pd.concat(out, ignore_index=True)

def scored(preds, kind='regression', metric='r'):
    "Scores of each model with intervals"
    s = prediction_scores(preds.assign(target='all'), kind)
    return s[s['metric']==metric].set_index('model')[['value', 'low', 'high']]

def in_folds(p, target):
    "Sites and splits as folds of their own, for ranks within each; one target"
    p['fold'] = p['fold']+10*pd.factorize(p['site'])[0]+100*p.get('split', 0)
    return p.assign(target=target)

def scored_rows(p, pairs, data, kind, metric='r', **more):
    "Rows of a table of predictions [target], all pairs one family"
    groups = dict(iter(p.groupby('target', sort=False)))
    auc = {k: {*g['y']}=={0, 1} for k,g in groups.items()}
    tables = {k: shares(g, 'auc' if auc[k] else 'r') for k,g in groups.items()}
    values = {k: scored(g, *(('classification', 'auc') if auc[k] else ('regression', 'r'))) for k,g in groups.items()}
    values = {k: v[v.index.isin(tables[k].columns)] for k,v in values.items()}
    return rows_of(tables, pairs, metric, data, kind, values, **more)

beside = [(f'{k}|trained', r) for k in read for r in rivals_of(f'{k}|trained')]

def planted_rows(a, p):
    return scored_rows(p.replace(dict(target=dict(gad7='GAD-7'))), beside, 'simulated cohort, 300 people, 200 frames', 'simulated', 'r (AUC for sex)')
def hidden_rows(a, p):
    p['target'] = 'hidden effect: '+p['target']
    n = p.groupby('target')['subject'].nunique().max()
    return scored_rows(p, beside, f'simulated cohorts with hidden effects, {n} people each, 200 frames', 'simulated')
def within_rows(a, p):
    return scored_rows(in_folds(p, 'age within a site'), beside, 'ABIDE, Pittsburgh and Olin, folds within each, network from the other sites', 'real')
def left_rows(a, p): return scored_rows(p, beside, 'ABIDE, Pittsburgh and Olin each left out, network from the other sites', 'real')
def where_of(p): return ' and '.join(dict(PITT='Pittsburgh', OLIN='Olin')[s] for s in sorted({*p['site']}))

def autism_rows(a, p):
    p = in_folds(p, 'autism against control')
    return scored_rows(p, beside, f'ABIDE, {where_of(p)}, network from the other sites', 'real', 'AUC')
def depression_rows(a, p):
    p = in_folds(p, 'depression against control')
    return scored_rows(p, beside, 'depression, two halves, the network of a half from the other', 'real', 'AUC')

longer_trained = dict(small='brainlm-small', tiny='a tiny network of HCP rest, 10,000 steps')

def larger_rows(a, p):
    p['target'] = 'age within a site, '+p['network'].map(longer_trained)
    said = p['target'].copy()
    return scored_rows(in_folds(p, said), beside, f'ABIDE, {where_of(p)}, 180 frames, networks that have seen nobody of it', 'real')

def outcome_rows(a, p): return scored_rows(p, beside, 'psychosis, change of symptoms and functioning, five folds', 'real')

def contrast_rows(a, t):
    "What shuffled labels give as often, for both questions"
    out, asked = [], t.get('asked', pd.Series(index=t.index, dtype=object)).fillna('autism against control')
    for (about,s),g in t.groupby([asked, 'site']):
        v = g.set_index('of').rename(index=lambda o: f'attention, {o}' if o!='raw' else 'correlations')
        for k,name in dict(largest='one link', spread='mean of t² over links').items():
            values = pd.DataFrame(dict(value=v[f'p_{k}'], n=v['n']))
            data = 'ABIDE, network from the other sites' if 'autism' in about else 'depression, network from the other half'
            facts = dict(kind='real', task=f'attention contrast, {about}, {name}, {s}', data=data)
            out.append(result_rows(values, [], ['attention, trained'], ['attention, untrained'], metric='p of shuffled labels', **facts))
    return pd.concat(out, ignore_index=True)

def identity_rows(a, t):
    tables = {f'the same person after three months, first {n} frames': found_by(g) for n,g in t.groupby('frames')}
    return rows_of(tables, beside, 'share found', 'psychosis, 37 people, network from 18 others', 'real')

guess_pairs = [(words['network'], words['prior']), (words['network'], words['raw']), (words['prior'], words['raw']), (words['network'], alike)]

def short_rows(a, t):
    def tables(of, least): return {f'the same person after three months, {n} frames, some of them guessed': found_by(g, of) for n,g in t.groupby('frames') if n>=least}
    about = 'psychosis, 37 people, the first one or two windows; prior, network and settings from 18 others', 'real'
    found = rows_of(tables('found', 0), guess_pairs, 'share found', *about)
    if 'margin' not in t or t['margin'].isna().all(): return found
    return pd.concat([found, rows_of(tables('margin', 30), guess_pairs, "SD above others' recordings", *about)])

def age_rows(a, t):
    t['fold'] = t['fold']+10*pd.factorize(t['site'])[0]+100*t['split']
    t['target'] = 'age within a site, first '+t['target']
    return scored_rows(t, guess_pairs, 'ABIDE, Pittsburgh and Olin, half of each frame guessed by prior and network of the other sites', 'real')

def vector_rows(a, t):
    tables = {'the same person after three months, 15 frames, half of the people teach': found_by(t)}
    taught = [(f'{h}|{s}', r) for h in ('identity', 'alignment') for s in ('network', 'raw') for r in (f'neither|{s}', 'closed|raw')]
    return rows_of(tables, taught, 'share found', 'psychosis, 37 people in two halves, network from 18 others', 'real')

def tuned_rows(a, p):
    "Of two rates the one with the lower loss of those who were there to stop on"
    best = p.groupby(['model', 'site', 'fold'])['loss'].transform('min')
    p = in_folds(p[p['loss']==best].drop_duplicates(['model', 'subject']), 'age within a site, five folds')
    rivals = [('frozen|trained', o) for o in ('frozen|untrained', *closed_ways)]
    tuned = [(f'{w}|{s}', r) for w in ('LoRA', 'all weights') for s,r in (('trained', 'frozen|trained'), ('trained', f'{w}|untrained'))]
    return scored_rows(p, rivals+tuned+[(f'{w}|trained', o) for w in ('LoRA', 'all weights') for o in closed_ways], f'ABIDE, {where_of(p)}, network from the other sites', 'real')

tables_of = dict(lin=planted_rows, hidden=hidden_rows, abide_within=within_rows, abide_left=left_rows, autism=autism_rows, depression=depression_rows, larger=larger_rows, contrast=contrast_rows, psyid=identity_rows,
                 psyout=outcome_rows, psyden=short_rows, abideden=age_rows, psyvec=vector_rows, tuned=tuned_rows)

def rows(a):
    "All that is there to nbs/results/readouts.tsv"
    made = {name: make(a, t) for name,make in tables_of.items() if (t := there(a, name)) is not None}
    keep_results(a.out, pd.concat(made.values(), ignore_index=True), command)

# Pieces, several at a time

def pieces_of(a, step):
    "(function, piece, file) of a step"
    def of(make, name, those): return [(make, o, file_of(a, name, o)) for o in those]
    guessing = [f'{n}-{g}-{k}' for n in pieces for g,m in groups_of(n) for k in range(m)]
    vectors = [f'{k}-{o}' for k in (0, 1) for o in ('raw-closed', *(f'{s}-{h}' for h in ('identity', 'alignment', 'neither') for s in ('network', 'raw')))]
    at = [(s, k) for s in sites for k in range(5)]
    tunings = [f'{s}-{k}-{w}-{r}' for w in [*tuned_ways, *closed_ways] for s,k in at for r in rates[tuned_ways.get(w, 'none')]]
    return dict(planted=of(planted, 'lin', ['all']), hidden=of(hidden, 'hidden', HIDDEN), abide=of(abide, 'abide_left', sites), autism=of(autism, 'autism', sites),
                depression=of(depression, 'depression', (0, 1)), larger=of(larger, 'larger', [f'{o}-{s}' for o in longer_trained for s in sites]),
                identity=of(identity, 'psyid', (234, 15, 60, 30, 10)), outcomes=of(outcomes, 'psyout', range(5)), ages=of(ages, 'abideden', [f'{n}-{s}' for n in (30, 60, 180) for s in sites]),
                guess=[(guess, o, a.work/'guesses'/f'{o}.npz') for o in guessing], short=of(short, 'psyden', pieces), vector=of(vector, 'psyvec', vectors),
                tuned=of(tuned, 'tuned', tunings), network=[(lambda a, _: network_of_simulated(a), '', a.work/'lin_net'/'last')])[step]

def one(a, at):
    "One piece, where it is not there and there is time"
    step, i = at
    make, piece, file = pieces_of(a, step)[i]
    if file.exists() or time.time()-a.begun>a.until: return
    torch.set_num_threads(1)
    try: make(a, piece)
    except Exception as e: print(f'{step} {piece}: {type(e).__name__}: {e}', flush=True)

steps = 'network', 'planted', 'hidden', 'abide', 'autism', 'depression', 'larger', 'identity', 'outcomes', 'guess', 'short', 'ages', 'vector', 'tuned', 'pack', 'rows'

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('steps', nargs='+', choices=steps)
    p.add_argument('--work', type=Path, default=root/'runs'/'person_readouts', help='where pieces are kept')
    p.add_argument('--pack', type=Path, help='folder of packed recordings, where the data sets are not')
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'readouts.tsv', help='the table of results')
    p.add_argument('--cores', type=int, default=1, help='processes')
    p.add_argument('--until', type=float, default=1e9, help='seconds after which no piece is begun')
    p.add_argument('--people', type=int, default=400, help='of a simulated cohort with a hidden effect')
    p.add_argument('--epochs', type=int, default=6, help='of fine-tuning, at most')
    p.add_argument('--steps-of-vector', type=int, default=25)
    a = p.parse_args(argv)
    a.work.mkdir(parents=True, exist_ok=True)
    a.begun, a.pool = time.time(), a.cores>1
    todo = [(s, i) for s in a.steps if s not in ('pack', 'rows') for i in range(len(pieces_of(a, s)))]
    if 'pack' in a.steps: pack(a)
    if a.pool:
        with multiprocessing.get_context('fork').Pool(a.cores) as pool: pool.map(partial(one, a), todo, chunksize=1)
    else:
        for o in todo: one(a, o)
    if 'rows' in a.steps: rows(a)

if __name__=='__main__': main()
