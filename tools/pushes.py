"""Pushes and turns of the shipped model, on data whose answer is known or measured elsewhere. For a CUDA card.

    python tools/pushes.py pack          # where the data are: task betas of HCP
    python tools/pushes.py run           # arrays in the work folder, each made once
    python tools/pushes.py trial         # a little of it, on a CPU

`respond`: each of 360 areas is pushed by 1 IQR in 8 people whom the model has not seen, with the network and with its
prior alone. `turn`: what must change for rest to look like a task (`brainlm.perturbation.optimise`) in simulated
people, where the task is planted in Visual, and in HCP rest to which the people's own task betas are added in
blocks. `longer`: networks whose connections are known, pushed after more steps of training than page 42a takes."""
import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import scaling
import torch

from brainlm.basics import write_whole
from brainlm.model import BrainLM
from brainlm.perturbation import apart, direction, optimise
from brainlm.recordings import RecordingStore
from brainlm.responses import answers, folded_network, folded_series, push_halves, step_windows
from brainlm.scaling import RobustScaler
from brainlm.simulation import simulate_cohort

root = Path(__file__).resolve().parents[1]
tasks = ('emotion:fear', 'gambling:win', 'language:story', 'motor:tongue', 'relational:relation', 'social:mental',
    'wm_2back:faces')

def pack(a):
    "Task betas of the people of HCP rest, and networks with known connections"
    from brainlm.datasets import fetch_hcp_task_betas, fetch_npi
    got = fetch_hcp_task_betas()
    beta = got.beta[:,[got.conditions.index(t) for t in tasks]]
    a.data.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(a.data/'betas.npz', beta=beta.astype('float16'), subjects=got.subjects)
    known = {f'{w}{k}': o[n] for k,o in enumerate(fetch_npi()) for w,n in (('x', 'series'), ('e', 'effective'))}
    np.savez_compressed(a.data/'npi.npz', **known)

def hcp_windows(a):
    "The first window of each person, scaled [person, 360, 200], whether the shipped model has seen them, and names"
    got, scaler = np.load(a.cohorts/'hcp.npz'), RobustScaler.load(a.cohorts/'hcp-all.json')
    x = np.stack([scaler.transform(o[:200].astype('float32')).T for o in got['x']])
    names = np.array([str(s).split('-')[-1] for s in got['subject']])
    return torch.from_numpy(x).float().to(a.device), ~np.isin(names, scaling.left_out['hcp']), names

def kept(a, name, make):
    "Arrays that are made once"
    file = a.work/f'{name}.npz'
    if file.exists() or not scaling.claimed(file): return
    start = time.time()
    arrays = make()
    write_whole(file, lambda part: scaling.save_arrays(part, arrays))
    print(name, f'{time.time()-start:.0f} s', flush=True)

@torch.no_grad()
def respond(a, seeds):
    "What a push of each area by 1 IQR changes, in its own 20 frames and in the next: mean over people [seed, parcel]"
    model = BrainLM.from_pretrained('brainlm-small').to(a.device)
    x, seen, _ = hcp_windows(a)
    x, said = x[torch.as_tensor(~seen)][:a.people], {}
    plain = model._prior_guess
    def guess(*args):
        said['prior'] = plain(*args)
        return said['prior']
    model._prior_guess = guess
    out = {k: np.full((len(seeds), 360), np.nan, 'float32') for k in ('now', 'next', 'prior_now', 'prior_next')}
    for i,p in enumerate(seeds):
        y, mask = x.clone(), torch.zeros(len(x), 360, 10, dtype=torch.bool, device=a.device)
        y[:,p,160:180] += 1
        mask[:,:,8:] = True
        mask[:,p,8] = False
        both = model(torch.cat([x, y]), mask=torch.cat([mask, mask])).prediction
        for k,o in (('', both), ('prior_', said['prior'])):
            change = (o[len(x):]-o[:len(x)])[:,:,8:].mean((0, 3))
            out[f'{k}now'][i], out[f'{k}next'][i] = change.T.cpu().numpy()
    return out

# What must change

def untrained(model):
    "A network of the same shape that has learned nothing"
    torch.manual_seed(0)
    c = replace(model.config, prior='none')
    return BrainLM(c, model.parcellation, model.scaler).to(model.cls.device).eval()

def turned(a, models, first, second, takers):
    "Energy [person, parcel] of the change from a condition toward another, and what is left of the distance"
    out = {}
    for name,m in models.items():
        shift = direction(m, first, second, 'tokens')
        r = optimise(m, takers, shift, latent='tokens', steps=a.steps, batch_size=32)
        far = apart(m, takers, shift, 'tokens', batch_size=32)
        out |= {f'{name}_energy': r.energy, f'{name}_left': r.distance, f'{name}_far': far}
    power = second.var(-1).mean(0)-first.var(-1).mean(0)
    mean = second.mean((0, 2))-first.mean((0, 2))
    return out | dict(power=power.abs().cpu().numpy(), mean=mean.abs().cpu().numpy())

def pair_of(model): return dict(trained=model, untrained=untrained(model))

def simulated(a):
    "People at rest and in a visual task"
    model = BrainLM.from_pretrained('brainlm-small', 'aal2').to(a.device)
    folder = a.work/'simulated'
    if not (folder/'table.tsv').exists(): simulate_cohort(folder, a.cohort, 'aal2', seed=2, progress=False)
    store = RecordingStore(folder)
    scaler, t, found = RobustScaler().fit(store, rows='all'), store.table, {}
    for k in ('rest', 'visual'):
        rows = t[t['task']==k].drop_duplicates('subject').sort_values('subject').index
        signals = [scaler.transform(store[int(i)].signal[:200]).T for i in rows]
        found[k] = torch.from_numpy(np.stack(signals)).float().to(a.device)
    n = 2*len(found['rest'])//3
    return turned(a, pair_of(model), found['rest'][:n], found['visual'][:n], found['rest'][n:])

def with_betas(a, task):
    "HCP rest, and the same people's rest with their own betas in blocks of 20 frames, as large as 1 IQR in the mean"
    model = BrainLM.from_pretrained('brainlm-small').to(a.device)
    x, seen, names = hcp_windows(a)
    got = np.load(a.data/'betas.npz')
    order = [list(map(str, got['subjects'])).index(n) for n in names]
    beta = got['beta'][order,tasks.index(task)].astype('float32')
    beta /= np.sqrt((beta**2).mean())
    blocks = np.convolve(np.arange(200)//20%2, np.hanning(9)/np.hanning(9).sum(), 'same')
    both = x+torch.from_numpy(beta[:,:,None]*blocks.astype('float32')).to(x)
    give, take = torch.as_tensor(seen), torch.as_tensor(~seen)
    found = turned(a, pair_of(model), x[give], both[give], x[take])
    return found | dict(truth=beta[~seen]**2, others=beta[seen]**2)

# Networks whose connections are known

def published(a, k, frames):
    "Agreement of BrainLM with a published network, after longer training"
    got = np.load(a.data/'npi.npz')
    x, truth = got[f'x{k}'][:frames].astype(float), got[f'e{k}']
    t = answers(x, truth, names=['BrainLM'], steps=a.long, seed=k, device=a.device)
    return dict(odd=t['odd'].to_numpy())

def folded(a, k, frames):
    "The same with a network of which a linear map sees half"
    net = folded_network(np.random.default_rng(k))
    x = folded_series(net, frames, np.random.default_rng(1000+k))
    truth = push_halves(net, step_windows(x)[0][:2000], x.std(0).mean())
    t = answers(x, *truth, names=['BrainLM'], steps=a.long, seed=k, device=a.device)
    return dict(odd=t['odd'].to_numpy(), even=t['even'].to_numpy())

def run(a):
    "All of it"
    jobs = dict(respond=lambda: respond(a, range(0, 360, a.each)), simulated=lambda: simulated(a))
    jobs |= {f'betas-{t}': lambda t=t: with_betas(a, t) for t in tasks[:a.tasks]}
    each = (published, 8000), (folded, 8000), (published, 2000), (published, 500)
    longer = [(f, k, n) for f,n in each for k in range(3)]
    jobs |= {f'{f.__name__}-{k}-{n}': lambda f=f, k=k, n=n: f(a, k, n) for f,k,n in longer}
    for name,make in jobs.items():
        if time.time()<a.until: kept(a, name, make)

def trial(a):
    a.steps, a.people, a.each, a.cohort, a.tasks, a.long = 2, 1, 180, 6, 1, 10
    run(a)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'run', 'trial'])
    p.add_argument('--work', type=Path, default=root/'runs'/'pushes', help='folder of arrays')
    p.add_argument('--data', type=Path, default=root/'.gpu'/'h6', help='folder of the betas')
    p.add_argument('--cohorts', type=Path, default=root/'.gpu'/'first', help='folder of hcp.npz of tools/scaling.py')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--steps', type=int, default=60, help='of `optimise`')
    p.add_argument('--people', type=int, default=8, help='who are pushed')
    p.add_argument('--long', type=int, default=6000, help='steps of training of a network with known connections')
    p.add_argument('--tasks', type=int, default=len(tasks), help='of HCP')
    a = p.parse_args(argv)
    a.device, a.each, a.cohort = 'cuda' if torch.cuda.is_available() else 'cpu', 1, 90
    a.until += time.time()
    a.work.mkdir(parents=True, exist_ok=True)
    dict(pack=pack, run=run, trial=trial)[a.what](a)

if __name__=='__main__': main()
