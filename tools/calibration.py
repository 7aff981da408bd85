"""How often do the pages find something where nothing is? Noise through the code that makes each page, with models and stores as
small as it takes. Runs are kept one by one, so that it can be stopped and gone on with.

    python tools/calibration.py run coin number -n 200      # adds what is missing to tools/calibration_tables/single/*.jsonl
    python tools/calibration.py table                       # writes tools/calibration_tables/calibration.csv and prints it
    python tools/calibration.py coverage -n 2000            # how often 95 % intervals hold the truth: coverage.csv"""
import argparse
import contextlib
import datetime
import html
import io
import json
import os
import re
import tempfile
import types
import warnings
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'): os.environ.setdefault(k, '1')
os.environ.setdefault('MPLBACKEND', 'Agg')

import numpy as np
import pandas as pd
import torch
from statsmodels.stats.proportion import proportion_confint

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.model import BrainLM, preset
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler

root = Path(__file__).resolve().parents[1]
kept, tables = root/'tools'/'calibration_tables'/'single', root/'tools'/'calibration_tables'

# Noise, and models that know nothing

def few_parcels():
    "Four parcels of each Yeo network of AAL2, with their places"
    full = load_parcellation('aal2')
    net = full.networks()
    rows = np.sort(np.concatenate([np.flatnonzero(net==k)[:4] for k in full.network_names()]))
    return Parcellation('few', full.table.iloc[rows].reset_index(drop=True))

def noise_store(folder, seed, people, tasks=('rest',), n_time=120):
    "White noise of so many people"
    g, p = np.random.default_rng(seed), few_parcels()
    def one(who, task):
        x = g.normal(size=(n_time, len(p))).astype('float32')
        return Recording(x, 2., f'{who:03d}', task=task, provenance='simulated')
    store = RecordingStore.create(folder, p)
    store.extend([one(who, task) for who in range(people) for task in tasks])
    return store

def blank_model(store, seed):
    "An untrained BrainLM of width 8"
    torch.manual_seed(seed)
    small = {k: 8 for k in ('width', 'mlp', 'decoder_width', 'decoder_mlp')} | dict(heads=2, layers=2, decoder_heads=2, decoder_layers=1)
    config = preset('tiny', n_parcels=store.n_parcels, n_time=60, **small)
    return BrainLM(config, store.parcellation, RobustScaler().fit(store, rows='all'))

# What each page says; every function gives {question: was it answered with yes?}

def verdict(page):
    "The words of the verdict of a page"
    return html.unescape(re.search(r'class="verdict">(.*?)</div>', Path(page).read_text(encoding='utf-8'), re.S)[1])

def _finetuned(folder, seed, values, rival):
    from brainlm.results import finetune_report
    store = noise_store(folder/'store', seed, 40)
    table = pd.DataFrame(dict(subject=[f'{i:03d}' for i in range(40)], y=values(np.random.default_rng(1000+seed))))
    split = store.split(.1, .5, seed)
    said = verdict(finetune_report(store, blank_model(store, seed), 'y', folder/'out', table, split=split, epochs=1))
    if f' {rival} (' not in said: raise ValueError(f'found no sentence on {rival!r}, expected one in: {said}')
    return {f'BrainLM is better than {rival}': f'BrainLM is better than {rival}' in said}

def coin(folder, seed):
    "Coin-toss labels"
    return _finetuned(folder, seed, lambda g: g.permutation(['A', 'B']*20), 'class frequencies')

def number(folder, seed):
    "A noisy number"
    return _finetuned(folder, seed, lambda g: g.normal(size=40), 'mean')

def attention(folder, seed):
    "Rest against task of one and the same noise, a new cohort in each run"
    from brainlm.attention import attention_report
    store = noise_store(folder/'store', seed, 24, ('rest', 'task'))
    attention_report(store, blank_model(store, seed), 'task', folder/'out', ('rest', 'task'), n_permutations=999, seed=seed)
    def found(name):
        t = pd.read_csv(folder/'out'/f'{name}.csv')
        return bool((t.loc[t['map']=='CLS attention', 'q']<.05).any())
    return {'any of 7 networks differs': found('networks'), 'any of 28 parcels differs': found('parcels')}

def perturbation(folder, seed):
    "From rest to task of one and the same noise"
    from brainlm.perturbation import perturbation_report
    store = noise_store(folder/'store', seed, 24, ('rest', 'task'))
    perturbation_report(store, blank_model(store, seed), folder/'out', steps=20, seed=seed)
    said = verdict(folder/'out'/'report.html')
    return {'energy stands out in a network': 'stands out in no network' not in said}

def forecast(folder, seed):
    "The future of white noise"
    from brainlm.results import forecast_report
    store = noise_store(folder/'store', seed, 40)
    split, how = store.split(.1, .5, seed), dict(rivals=('mean', 'persistence'), epochs=3, lr=3e-3)
    said = verdict(forecast_report(store, blank_model(store, seed), folder/'out', split, 40, 20, **how))
    return {'BrainLM is better than mean': bool(re.search(r'BrainLM [\w-]+ is better than mean', said))}

kinds = dict(coin=coin, number=number, attention=attention, perturbation=perturbation, forecast=forecast)

@contextlib.contextmanager
def without_pictures():
    "Pages are made whole, but nothing is painted: that takes most of the time and says nothing"
    import matplotlib.figure
    import nilearn.plotting

    import brainlm.attention
    old = matplotlib.figure.Figure.savefig, nilearn.plotting.plot_surf, brainlm.attention.view_surface
    def put(save, surface, view):
        matplotlib.figure.Figure.savefig, nilearn.plotting.plot_surf, brainlm.attention.view_surface = save, surface, view
    put(lambda self, out, **kw: None, lambda *a, **kw: None, lambda *a, **kw: types.SimpleNamespace(save_as_html=lambda f: None))
    try: yield
    finally: put(*old)

def one_run(kind, seed):
    "{question: yes or no} of one run"
    quiet = contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO())
    with tempfile.TemporaryDirectory() as folder, without_pictures(), warnings.catch_warnings(), quiet[0], quiet[1]:
        warnings.simplefilter('ignore')
        return kinds[kind](Path(folder), seed)

# Runs that go on

def _lines(kind, folder):
    f = Path(folder)/f'{kind}.jsonl'
    return [json.loads(o) for o in f.read_text().splitlines()] if f.exists() else []

def done(kind, folder=kept):
    "{seed: answers} of the runs that are there one by one"
    return {o['seed']: o['said'] for o in _lines(kind, folder) if 'seed' in o}

def counted(kind, folder=kept):
    "How many runs, seeds 0 and following, are there as counts only, and {question: yes} of them"
    old = [o for o in _lines(kind, folder) if 'seeds' in o]
    return (old[0]['seeds'], old[0]['yes']) if old else (0, {})

def run(which, n, folder=kept):
    "What is missing of `n` runs of each kind, one of each in turn"
    Path(folder).mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    there = {k: {*range(counted(k, folder)[0]), *done(k, folder)} for k in which}
    for seed in range(n):
        for k in [k for k in which if seed not in there[k]]:
            line = json.dumps(dict(seed=seed, said=one_run(k, seed), date=datetime.date.today().isoformat()))
            with open(Path(folder)/f'{k}.jsonl', 'a') as f: f.write(line+'\n')
            print(k, line, flush=True)

def table(folder=kept):
    "A row a question: runs, yes, rate with its 95 % interval (Wilson), and whether 5 % or less is inside"
    rows = []
    for k in kinds:
        before, yes_before = counted(k, folder)
        found = pd.DataFrame(done(k, folder)).T
        for q in dict.fromkeys([*yes_before, *found]):
            yes, n = yes_before.get(q, 0)+(int(found[q].sum()) if q in found else 0), before+len(found)
            low, high = proportion_confint(yes, n, method='wilson')
            rows.append((kinds[k].__doc__, q, n, yes, yes/n, low, high))
    t = pd.DataFrame(rows, columns=['noise', 'what the page says', 'runs', 'yes', 'rate', 'low', 'high']).round(3)
    t['date'] = datetime.date.today().isoformat()
    t.to_csv(tables/'calibration.csv', index=False)
    return t

# Do intervals hold the truth?

def coverage(n, seed=0):
    "Share of 95 % intervals that hold the truth, of means by Student's t, BCa and percentiles, plain and widened"
    from brainlm.stats import bca_interval, percentiles, resamples, t_interval
    g, rows = np.random.default_rng(seed), []
    truths = {'normal': (lambda s: g.normal(size=s), 0), 'lopsided (exponential)': (lambda s: g.exponential(size=s), 1),
              'heavy tails (t, 3 df)': (lambda s: g.standard_t(3, size=s), 0)}
    for name, (draw, truth) in truths.items():
        for people in (5, 8, 20, 100):
            v = draw((people, n))
            means = resamples(people, 2000, seed)@v/people
            without = (v.sum(0)-v)/(people-1)
            ways = {"Student's t": t_interval(v), 'percentiles, widened up to 20 people': percentiles(means, n=people),
                    'percentiles': percentiles(means), 'BCa': bca_interval(v.mean(0), means, without)}
            rows.append((name, people, *(float(((o[0]<=truth) & (truth<=o[1])).mean()) for o in ways.values())))
    t = pd.DataFrame(rows, columns=['differences', 'people', *ways]).round(3)
    t['intervals'], t['date'] = n, datetime.date.today().isoformat()
    t.to_csv(tables/'coverage.csv', index=False)
    return t

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['run', 'table', 'coverage'])
    p.add_argument('kinds', nargs='*', help=f"of noise: {', '.join(kinds)}; none: all")
    p.add_argument('-n', type=int, default=200, help='runs of each, or intervals')
    p.add_argument('--runs', default=kept, help='folder of the runs')
    a = p.parse_args(argv)
    if odd := sorted(set(a.kinds)-set(kinds)): p.error(f"found {odd[0]!r}, expected some of {', '.join(kinds)}")
    if a.what=='run': return run(a.kinds or list(kinds), a.n, a.runs)
    print((table(a.runs) if a.what=='table' else coverage(a.n)).to_string(index=False))

if __name__=='__main__': main()
