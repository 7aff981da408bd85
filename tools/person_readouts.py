"""What each readout of a frozen network says of people, beside its untrained twin and beside the same readout of the raw series.

A network learns, unlabelled, from people of whom nobody is judged; its twin has the same first weights and the same prior. Every pooling of
`brainlm.poolings` is read from both, and from patches of the signal in the place of tokens (correlations in the place of attention). Poolings
learn what they must from the people of the network. Questions:

    planted    300 simulated people, 80 others: age, sex, GAD-7 (effects in correlations)
    hidden     200 simulated people for each effect that correlations do not show, the network of `planted`
    abide      age within a site and at a site left out; the network learns from the other sites
    identity   37 people of the psychosis set three months apart, from 10 to 234 frames; all that learns learns from 18 others
    outcomes   change of symptoms in the psychosis set, five folds, a network for each
    short      frames guessed from the other half of the patches, by the prior and by the network, mixed in before the whitened embedding
    rows       all of it to nbs/results/readouts.tsv, by the one rule

    python tools/person_readouts.py identity short rows [--work runs/person_readouts]
"""
import argparse
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback, CancelFitException

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

from brainlm.clinical import nested_cv, outer_folds
from brainlm.datasets import fetch_abide, fetch_psychosis
from brainlm.evidence import keep_results, result_rows
from brainlm.masking import unpatchify
from brainlm.metrics import prediction_scores, scaled_recordings
from brainlm.model import BrainLM, preset
from brainlm.patients import identified, score_shares
from brainlm.poolings import poolings
from brainlm.pretraining import Training, pretrain_learner
from brainlm.prior import SpaceTimePrior
from brainlm.readouts import Flat, PersonEmbedding, PersonReader
from brainlm.recordings import RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.simulation import EFFECTS, HIDDEN, simulate_cohort
from brainlm.stats import mean_interval, verdicts

read = ['cls', 'mean', 'covariance', 'whitened', 'maps', 'maps_whitened']
closed = ('whitened embedding', 'raw')                                      # `PersonEmbedding` of all frames
command = 'python tools/person_readouts.py'

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

class StopAfter(Callback):
    "End a training after so many epochs, wherever its schedule is"
    order = 110                                                             # after the run folder has its checkpoint
    def __init__(self, n): self.n = n
    def after_epoch(self):
        if self.epoch+1>=self.n: raise CancelFitException

def network(a, store, rows, name, epochs, size, batch, quick=True, stop=None, **shape):
    "What learns from `rows` of a store, and its twin; `quick`: the weights of the prior are those of the recipe"
    words = np.full(len(store), 'none', object)
    words[rows] = 'train'
    config = preset(size, n_parcels=store.n_parcels, prior='space-time', **shape)
    how, prior, scaler = Training(batch_size=batch, progress=False, device='cpu'), None, RobustScaler().fit(store, words)
    if quick:
        prior = SpaceTimePrior(store.n_parcels)
        prior.fit(scaled_recordings(store, scaler, words), store.table['tr_s'].median(), patch_size=config.patch_size, choices=None)
    learn = pretrain_learner(store, config, a.work/name, words, scaler=scaler, prior=prior, training=how)
    blank = BrainLM(config, store.parcellation, learn.model.scaler)
    blank.load_state_dict(learn.model.state_dict())
    if not (a.work/name/'last').exists():
        if stop: learn.add_cb(StopAfter(stop))
        learn.pretrain(epochs, resume=True)
        learn.model.load_state_dict(torch.load(a.work/name/'checkpoint.pt', weights_only=True)['model'])
        if stop: learn.model.save_pretrained(a.work/name/'last')
    return BrainLM.from_pretrained(a.work/name/'last').eval(), blank.eval()

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
    windows, out, size = cut(people), {}, model.config.patch_size
    who = np.array([i for i,_ in windows])
    for k in read:
        if k not in known:
            known[k] = poolings[k](model.config)
            if known[k].fitted: known[k].fit(model, list(batches([w for _,w in cut(learn)], size)))
        made = torch.cat([known[k](model, *o) for o in batches([w for _,w in windows], size)]).numpy()
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

def store_of(a, name, recordings, parcellation):
    "The store of recordings, made where it is not there"
    if not (a.work/name).exists(): RecordingStore.create(a.work/name, parcellation).extend(recordings)
    return RecordingStore(a.work/name)

def cohort(a, name, n, **how):
    "A simulated cohort, made where it is not there"
    if (a.work/name).exists(): return RecordingStore(a.work/name)
    return simulate_cohort(a.work/name, n, 'aal2', progress=None, **how)

def series(store): return [store.read(i) for i in range(len(store))]

def keep(a, name, table):
    table.to_csv(a.work/f'{name}.csv', index=False)
    print(name, len(table), 'rows', flush=True)

# Simulated people

def planted(a):
    "Effects in correlations"
    sizes = {k: v.size for k,v in EFFECTS.items() if k!='visual_task'}
    people = cohort(a, 'lin', 300, n_time=200, effects=sizes, seed=12)
    others = cohort(a, 'lin_others', 80, n_time=200, effects=sizes, seed=11)
    brain, blank = network(a, others, range(80), 'lin_net', 6, 'tiny', 8, quick=False)
    made, t = three(brain, blank, series(others), series(people), 200), people.table
    labels = dict(age=t['age'].to_numpy(float), sex=(t['sex']=='F').to_numpy(int), gad7=t['gad7'].to_numpy(float))
    keep(a, 'lin', pd.concat([predictions(made, y, t['subject'].to_numpy(), k, k=='sex') for k,y in labels.items()]))

def hidden(a):
    "Effects that correlations do not show, read by the network of `planted`, which has seen none of them"
    others = cohort(a, 'lin_others', 80, n_time=200, effects={k: v.size for k,v in EFFECTS.items() if k!='visual_task'}, seed=11)
    brain, blank = network(a, others, range(80), 'lin_net', 6, 'tiny', 8)
    parts, known = [], {}
    for n in ('spectrum', 'nonlinear', 'switching', 'flow', 'haemodynamics'):
        c = cohort(a, f'hid_{n}', 200, n_time=200, effects={}, hidden={n: .8})
        made = three(brain, blank, series(others), series(c), 200, known)
        y = c.table['age' if HIDDEN[n].label=='age' else n].to_numpy(float)
        parts.append(predictions(made, y, c.table['subject'].to_numpy(), n))
        keep(a, 'hidden', pd.concat(parts))

# Real people

def abide(a):
    "Age within a site and at a site left out; what every readout made is kept for `short`"
    d = fetch_abide()
    store, X = store_of(a, 'abide', d.recordings, d.parcellation), [r.signal for r in d.recordings]
    who, site = (np.array(o) for o in zip(*[(r.subject, r.covariates['site']) for r in d.recordings]))
    age, within, left = np.array([r.covariates['age'] for r in d.recordings]), [], []
    for k,s in enumerate(('PITT', 'OLIN')):                                # Portland has ten boys of 8 to 15
        learn, here = np.flatnonzero(site!=s), np.flatnonzero(site==s)
        brain, blank = network(a, store, learn, f'abide_{s}', 2, 'nano', 4, n_time=60, patch_size=5)
        made = three(brain, blank, [X[i] for i in learn], X, 60)
        left.append(carried_over(made, age, who, learn, here, target='age, site left out', fold=k))
        own = {o: f[here] for o,f in made.items()}
        within += [predictions(own, age[here], who[here], 'age within a site', seed=o).assign(split=o, site=s) for o in range(2)]
    keep(a, 'abide_within', pd.concat(within))
    keep(a, 'abide_left', pd.concat(left))

def twice_seen():
    "Names of those who came twice, their scans of each session, and scans of the others"
    d = fetch_psychosis()
    at = {s: {r.subject: r for r in d.recordings if r.session==s} for s in '12'}
    twice = d.subjects
    return twice, [[at[s][k].signal for k in twice] for s in '12'], [r for k,r in at['1'].items() if k not in twice], d

def network_of_others(a):
    "The network that has seen the 18 who came once"
    others, d = twice_seen()[2:]
    return network(a, store_of(a, 'psy18', others, d.parcellation), range(18), 'psy18_net', 6, 'nano', 2, stop=3, n_time=60, patch_size=5)

def identity(a):
    "Who is found again"
    twice, (first, second), others, _ = twice_seen()
    brain, blank = network_of_others(a)
    known, rows = {}, []
    for n in (15, 60, 30, 10, 234):
        made = three(brain, blank, [r.signal[:180] for r in others], [x[:n] for x in first+second], min(n, 60), known)
        rows += [pd.DataFrame(dict(model='|'.join(k), frames=n, subject=twice, found=identified(f[:37], f[37:]))) for k,f in made.items()]
        keep(a, 'psyid', pd.concat(rows))

def outcomes(a):
    "Change of symptoms and functioning"
    d = fetch_psychosis()
    R = [r for r in d.recordings if r.session=='1']
    store, X, who = store_of(a, 'psy55', R, d.parcellation), [r.signal for r in R], np.array([r.subject for r in R])
    known, fold, parts = pd.DataFrame([r.covariates for r in R]), outer_folds(who), []
    for k in range(5):
        learn = np.flatnonzero(fold!=k)
        brain, blank = network(a, store, learn, f'psy55_{k}', 15, 'nano', 2, n_time=60, patch_size=5)
        made = three(brain, blank, [X[i][:120] for i in learn], X, 60)
        for c in ('bprs_change_6m', 'bprs_change_12m', 'sofas_change_6m', 'sofas_change_12m'):
            y = known[c].to_numpy(float)
            there = ~np.isnan(y)
            parts.append(carried_over(made, y, who, np.flatnonzero(there & (fold!=k)), np.flatnonzero(there & (fold==k)), target=c, fold=k))
        keep(a, 'psyout', pd.concat(parts))

# Frames guessed from others

@torch.no_grad()
def guessed(model, X, n, k, seed=0):
    "Piece k of n frames [piece][time, parcel], as it is, and each patch from the other half of them, by prior and by network"
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

def mixtures(made):
    "{(source, share): pieces}; shares were fixed beforehand"
    yield ('raw', 0.), list(made['raw'])
    for source in ('prior', 'network'):
        for share in (.25, .5): yield (source, share), list((1-share)*made['raw']+share*made[source])

def short(a):
    "Identification and age from pieces in which guessed frames are mixed"
    twice, sessions, others, _ = twice_seen()
    brain, rows = network_of_others(a)[0], []
    for n in (15, 10, 30, 60):
        learn = [dict(mixtures(guessed(brain, [r.signal for r in others], n, k))) for k in (0, 1)]
        one, two = (dict(mixtures(guessed(brain, s, n, 0))) for s in sessions)
        for key in one:
            e = PersonEmbedding().fit([o for m in learn for o in m[key]])
            found = identified(e.transform(one[key]), e.transform(two[key]))
            rows.append(pd.DataFrame(dict(source=key[0], share=key[1], frames=n, subject=twice, found=found)))
        keep(a, 'psyden', pd.concat(rows))
    ages_from_short(a)

def ages_from_short(a):
    "Age within a site from the first frames, guessed by networks of the other sites"
    d, rows = fetch_abide(), []
    for s in ('PITT', 'OLIN'):
        R, brain = [r for r in d.recordings if r.covariates['site']==s], BrainLM.from_pretrained(a.work/f'abide_{s}'/'last').eval()
        who, age = np.array([r.subject for r in R]), np.array([r.covariates['age'] for r in R])
        for n in (30, 60):
            for key,X in mixtures(guessed(brain, [r.signal for r in R], n, 0)):
                reader = lambda key=key: {f'{key[0]}|{key[1]}': PersonReader(PersonEmbedding())}
                rows += [nested_cv(X, age, who, reader, f'{n} frames', 'zscore', seed=o).assign(split=o, site=s) for o in range(3)]
            keep(a, 'abideden', pd.concat(rows))

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

def readout_rows(a, file, data, kind, tasks=None, claim=''):
    "Rows of a table of predictions: each readout beside its twin and the raw series"
    p = pd.read_csv(a.work/f'{file}.csv', dtype=dict(subject=str))
    if 'split' in p: p['fold'] = p['fold']+10*pd.factorize(p['site'])[0]+100*p['split']
    if 'site' in p: p['target'] = 'age within a site'
    p['subject'] = p['subject'].astype(str)
    groups = {(tasks or {}).get(k, k): g for k,g in p.groupby('target', sort=False)}
    classes = {k: {*g['y']}=={0, 1} for k,g in groups.items()}
    tables = {k: shares(g, 'auc' if classes[k] else 'r') for k,g in groups.items()}
    values = {k: scored(g, *(('classification', 'auc') if classes[k] else ('regression', 'r'))) for k,g in groups.items()}
    values = {k: v[v.index.isin(tables[k].columns)] for k,v in values.items()}
    pairs = [(f'{k}|trained', r) for k in read for r in rivals_of(f'{k}|trained')]
    return rows_of(tables, pairs, 'r (AUC for sex)' if any(classes.values()) else 'r', data, kind, values, claim)

def rows(a):
    "All that is there to nbs/results/readouts.tsv"
    pairs = [(f'{k}|trained', r) for k in read for r in rivals_of(f'{k}|trained')]
    there = lambda name: (a.work/f'{name}.csv').exists()
    made = []
    if there('lin'): made.append(readout_rows(a, 'lin', 'simulated cohort, 300 people, 200 frames', 'simulated', dict(gad7='GAD-7')))
    if there('hidden'): made.append(readout_rows(a, 'hidden', 'simulated cohorts with hidden effects, 200 people each, 400 frames', 'simulated'))
    if there('abide_within'): made.append(readout_rows(a, 'abide_within', 'ABIDE, Pittsburgh and Olin, folds within each, network from the other sites', 'real'))
    if there('abide_left'): made.append(readout_rows(a, 'abide_left', 'ABIDE, Pittsburgh and Olin each left out, network from the other sites', 'real'))
    if there('psyout'): made.append(readout_rows(a, 'psyout', 'psychosis, change of symptoms and functioning, five folds', 'real'))
    for name,make in (('psyid', identity_rows), ('psyden', short_rows), ('abideden', short_age_rows)):
        if there(name): made.append(make(a, pd.read_csv(a.work/f'{name}.csv', dtype=dict(subject=str)), pairs))
    keep_results(root/'nbs'/'results'/'readouts.tsv', pd.concat(made, ignore_index=True), command)

def identity_rows(a, t, pairs):
    tables = {f'the same person after three months, first {n} frames': found_by(g) for n,g in t.groupby('frames')}
    return rows_of(tables, pairs, 'share found', 'psychosis, 37 people, network from 18 others', 'real')

def short_rows(a, t, pairs):
    t['model'] = 'whitened embedding of '+t['source']+', share '+t['share'].astype(str)+np.where(t['source']=='network', '|network', '|raw')
    tables = {f'the same person after three months, first {n} frames, some of them guessed': found_by(g) for n,g in t.groupby('frames')}
    return rows_of(tables, guess_pairs(t), 'share found', 'psychosis, 37 people, prior and network from 18 others', 'real')

def guess_pairs(t):
    "Guessed by the network beside guessed by the prior, and both beside the frames as they are"
    names = sorted({*t['model']})
    own = next(m for m in names if ' raw,' in m)
    prior, net = ([m for m in names if f' {o},' in m] for o in ('prior', 'network'))
    return [*zip(net, prior), *((m, own) for m in prior+net)]

def short_age_rows(a, t, pairs):
    source, share = t['model'].str.split('|', expand=True).T.to_numpy()
    t['model'] = [f'whitened embedding of {o}, share {s}|{"network" if o=="network" else "raw"}' for o,s in zip(source, share)]
    t['fold'] = t['fold']+10*pd.factorize(t['site'])[0]+100*t['split']
    groups = {f'age within a site, first {k}, some of them guessed': g for k,g in t.groupby('target', sort=False)}
    tables, values = {k: shares(g, 'r') for k,g in groups.items()}, {k: scored(g) for k,g in groups.items()}
    return rows_of(tables, guess_pairs(t), 'r', 'ABIDE, Pittsburgh and Olin, prior and network from the other sites', 'real', values)

steps = dict(planted=planted, hidden=hidden, abide=abide, identity=identity, outcomes=outcomes, short=short, rows=rows)

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('steps', nargs='+', choices=list(steps))
    p.add_argument('--work', type=Path, default=root/'runs'/'person_readouts')
    a = p.parse_args()
    a.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for k in a.steps: steps[k](a)
