"""What `brainlm-small` is worth on atlases that its network has never seen, beside the same prior without the network.

ABIDE (116 regions) and depression (164): scaler and prior are fitted to training people of the cohort, the network has seen nobody of it. Heat pain
(122 regions): nothing is fitted to other people; each person is scaled by their other runs, and the Gaussian is carried over by the places of the
parcels, or knows the window alone. One window a person, 20 people each. Nothing made here is shipped.

    python tools/small_elsewhere.py [--data abide depression pain] [--people 20]
"""
import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

root = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))

from brainlm.atlases import carried
from brainlm.datasets import fetch_abide, fetch_depression, fetch_pain_task
from brainlm.evidence import keep_results, result_rows
from brainlm.masking import centred, patchify
from brainlm.metrics import evaluate, scaled_recordings, score, window_mask
from brainlm.mixture import beside_prior
from brainlm.model import BrainLM
from brainlm.prior import SpaceTimePrior, stack_context
from brainlm.recordings import RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.stats import mean_interval, nan_mean, verdicts
from brainlm.windows import TiledWindows

ratios = .2, .5, .75
command = 'python tools/small_elsewhere.py'
split = dict(valid=0., test=.2, seed=1)
fetchers = dict(abide=fetch_abide, depression=fetch_depression)
words = dict(abide='ABIDE, 116 regions', depression='depression, 164 regions', pain='heat pain, 122 regions')

def cohort(name, n_people):
    "R² of each person, model and mask ratio: the prior is of the cohort's own training people"
    got = fetchers[name]()
    store = RecordingStore.create(Path(tempfile.mkdtemp())/name, got.parcellation)
    store.extend(got.recordings)
    sides = store.split(**split)
    scaler, prior = RobustScaler().fit(store, sides), SpaceTimePrior(store.n_parcels)
    prior.fit(scaled_recordings(store, scaler, sides), store.table['tr_s'].median(), n_trials=6)
    model = BrainLM.from_pretrained('brainlm-small').on(store.parcellation, scaler, prior)
    windows = TiledWindows(store, scaler, sides.test[:n_people])
    first = windows.start==0
    windows.item, windows.start = windows.item[first], windows.start[first]
    stats = evaluate(beside_prior(model, context=False), windows, ratios=ratios, batch_size=4)
    return score(stats, ('model', 'mask_ratio', 'subject'))['r2'].reset_index()

def person_of_pain(model, runs, index, priors):
    "R² of one person's first run, scaled by the others, which are context too"
    first, *others = runs
    z = np.concatenate([o.signal-nan_mean(o.signal) for o in others])
    iqr = np.subtract(*np.percentile(np.nan_to_num(z), [75, 25], axis=0))
    gone = ~(iqr>0) | np.isnan(first.signal).any(0)
    scale = lambda x: np.where(gone, 0, x/np.where(gone, 1, iqr)).astype('float32').T
    n = min(200, len(first.signal)//20*20)
    x = torch.from_numpy(scale(first.signal[:n]-first.signal[:n].mean(0)))[None]
    valid = torch.from_numpy(~gone)[None,:,None].expand(1, -1, n//20).clone()
    beside = stack_context([(torch.from_numpy(scale(np.nan_to_num(z))), torch.full((len(z),), 100.))])
    rows = []
    for r in ratios:
        mask = window_mask(valid[0], r, index)[None]
        y = centred(x, mask, [n], valid)
        patches, truth = patchify(y, 20), patchify(y, 20)[mask]
        for name,prior,context in priors:
            on = model.on(model_atlas, None, prior)
            with torch.no_grad():
                guess = prior(patches.masked_fill(mask[...,None], 0), valid & ~mask, beside if context else None)
                found = on(y, valid=valid, mask=mask, **(dict(context=beside) if context else {})).prediction
            for kind,p in (('same prior', guess), ('BrainLM', found)):
                r2 = 1-float((p[mask]-truth).square().sum()/(truth-truth.mean()).square().sum())
                rows.append((f'{kind}, {name}', r, first.subject, r2))
    return rows

def pain(n_people):
    "R² of each person, model and mask ratio: no other person of the set is looked at"
    global model_atlas
    got = fetch_pain_task()
    model, model_atlas = BrainLM.from_pretrained('brainlm-small', 'schaefer419x7'), got.parcellation
    moved = carried(model.prior, model.parcellation, model_atlas)
    alone = SpaceTimePrior(len(model_atlas)).set(np.zeros(len(model_atlas)), .55*np.eye(len(model_atlas)))
    alone.dt_s.fill_(2.)
    alone.group_s.fill_(72.)
    priors = [('window alone', alone, False), ('carried over', moved, False), ('carried over, other runs', moved, True)]
    people = pd.Series(got.recordings).groupby([o.subject for o in got.recordings])
    several = [list(g) for _,g in people if len(g)>1][:n_people]
    rows = [o for i,runs in enumerate(several) for o in person_of_pain(model, runs, i, priors)]
    return pd.DataFrame(rows, columns=['model', 'mask_ratio', 'subject', 'r2'])

def kept(name, each, out):
    "Rows of the table: each model, and BrainLM beside the same prior"
    for r,g in each.groupby('mask_ratio'):
        t = g.pivot(index='subject', columns='model', values='r2')
        values = {m: (v.mean(), *mean_interval(v.to_numpy()), len(v)) for m,v in t.items()}
        values = pd.DataFrame(values, index=['value', 'low', 'high', 'n']).T
        ours = [m for m in t if m.startswith('BrainLM')]
        pairs = {m.replace('BrainLM', 'same prior'): m for m in ours}
        found = verdicts({p: (t[m]-t[p]).to_numpy() for p,m in pairs.items()}, 'BrainLM', 'R²')
        found = [replace(v, mine=pairs[v.rival]) for v in found]
        task = f'fill in, atlas unseen by the network, {r:.0%} hidden'
        keep_results(out, result_rows(values, found, ours, task=task, data=words[name], metric='R²'), command)
        print(words[name], r, *[f'{v.mine}: {v.difference:+.4f} [{v.low:+.4f}, {v.high:+.4f}] {v.says}' for v in found], sep='\n  ')

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', nargs='+', choices=list(words), default=list(words))
    p.add_argument('--people', type=int, default=20)
    p.add_argument('--out', type=Path, default=root/'nbs'/'results'/'small.tsv', help='the table of results')
    a = p.parse_args(argv)
    for name in a.data:
        each = pain(a.people) if name=='pain' else cohort(name, a.people)
        print(each.groupby(['mask_ratio', 'model'])['r2'].mean().round(4).to_string())
        kept(name, each, a.out)

if __name__=='__main__': main()
