"Files that mean harm, from the makers in hostile.py: a refusal each, in a line, in little memory"
import re
import time
import warnings
from html import escape
from pathlib import Path

import hostile
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import neutral
from brainlm.preprocessing import plan as plan_of
from brainlm.preprocessing import preprocess
from brainlm.readers import read_volume
from brainlm.recordings import Recording, RecordingStore

goes_in = {'nifti_of_unknown_units', 'hdf5_whose_time_lies_in_another_file', 'hdf5_that_runs_in_a_circle'}
unclear = re.compile(r'not foreseen|Traceback|\n|<class|object at 0x')

def peak_mb():
    "The most memory that this process has had, MB; None where the system does not say"
    try: return int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])/1000
    except (OSError, TypeError): return None

def forget_peak():
    try: Path('/proc/self/clear_refs').write_text('5')
    except OSError: pytest.skip('this system does not say how much memory a step takes')

@pytest.fixture(scope='module')
def walked(tmp_path_factory):
    "All of them in one call: what became of each, seconds of computing, memory over what was there before"
    top = tmp_path_factory.mktemp('hostile')
    atlas,files = hostile.cubes(top),[]
    for name,(_,make) in hostile.corpus.items():
        (top/name).mkdir()
        files.append(make(top/name))
    forget_peak()
    idle,t = peak_mb(),time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        got = preprocess(files, top/'store', atlas, subject_pattern=f'{top}/([^/]+)/', progress=False)
    return got,time.process_time()-t,peak_mb()-idle

def test_each_is_refused_in_a_line(walked):
    got,_,_ = walked
    t = got.intake
    t.index = t['file'].str.extract(r'hostile\d*/(\w+)/')[0]
    assert set(t.index[t.outcome=='added'])==goes_in
    bad = t[t.outcome=='failed']
    assert goes_in | set(bad.index)==set(hostile.corpus)
    for r in bad.itertuples():
        assert r.reason and r.remedy and not unclear.search(r.reason+r.remedy) and len(r.reason)<=400, r
        assert 'expected' in r.reason+r.remedy, r

def test_none_takes_much_memory_or_time(walked):
    "The files hold up to 60 MB, what they speak of up to petabytes"
    _,seconds,mb = walked
    assert mb<200 and seconds<40

def test_the_tables_are_neutral_in_a_spreadsheet(tmp_path, monkeypatch):
    "The name of a file is a formula, and comes back whole by way of a plan"
    atlas = hostile.cubes(tmp_path)
    f = tmp_path/"=cmd|'calc'!A0_timeseries.tsv"
    pd.DataFrame(hostile.series(), columns=hostile.names).to_csv(f, sep='\t', index=False)
    monkeypatch.chdir(tmp_path)
    plan = neutral(plan_of([f.name], atlas, tr_s=2.))
    assert plan['file'].tolist()==[f"'{f.name}"]
    plan.to_csv('plan.tsv', sep='\t', index=False)
    got = preprocess([f.name], 'store', atlas, manifest='plan.tsv', tr_s=2., progress=False)
    assert got.added==1
    assert b"'=cmd" in got.store.get_file('intake.tsv')

def test_a_well_packed_image_goes_in(tmp_path):
    "Mostly background, packed 70 to one: an ordinary image of integers"
    atlas = hostile.cubes(tmp_path)
    x = np.zeros((46, 56, 48, 900), 'int16')
    x[:] = np.repeat(np.repeat(np.repeat(hostile.lab, 2, 0), 2, 1), 2, 2)[...,None]*(np.arange(900)%9+1)
    fine = hostile.affine@np.diag([.5, .5, .5, 1])
    img = nib.Nifti1Image(x, fine)
    img.set_sform(fine, 4)
    img.header.set_zooms((4, 4, 4, 2))
    f = tmp_path/'sub-1_space-MNI152_bold.nii.gz'
    nib.save(img, f)
    assert x.nbytes>200e6 and x.nbytes/f.stat().st_size>50
    assert read_volume(str(f), atlas).signal.shape==(900, 12)

def test_names_are_words_on_a_page():
    "What a person, a parcel or a store is called is shown, never run: in tables, headings, captions and verdicts"
    from brainlm.metrics import ScoreTable
    from brainlm.report import Page
    bad = '<img src=x onerror=alert(1)>'
    t = pd.DataFrame({bad: [bad]}, pd.Index([bad], name=bad))
    pages = ScoreTable(t, bad)._repr_html_(), str(Page(bad, bad).verdict(bad).add(bad, bad, (t, bad, '')))
    for html in pages: assert '&lt;img' in html and '<img' not in html

hurts = '<script>alert(1)</script>&amp;'

def four_people(folder, p, n_time):
    "A simulated store of people whose names are code, and a model that has learned nothing"
    from brainlm.model import BrainLM, preset
    from brainlm.scaling import RobustScaler
    store,rng = RecordingStore.create(folder, p, chunk_rows=n_time),np.random.default_rng(0)
    signals = rng.standard_normal((4, n_time, len(p))).astype('float32')
    store.extend(Recording(x, 1., f'{i}{hurts}', provenance='simulated') for i,x in enumerate(signals))
    size = dict(width=8, heads=1, mlp=8, layers=2, decoder_width=8, decoder_heads=1, decoder_mlp=8, decoder_layers=1)
    return store,BrainLM(preset('tiny', n_parcels=len(p), **size), p, RobustScaler().fit(store, rows='all'))

def test_a_person_is_a_word_on_the_page_of_a_forecast(tmp_path):
    "The one whose recording is damaged, and left out"
    from brainlm.results import forecast_report
    store,model = four_people(tmp_path/'s', Parcellation('few', load_parcellation('aal2').table[:8]), 200)
    chunk = tmp_path/'s/bold/c.0.0'
    chunk.write_bytes(chunk.read_bytes()[::-1])
    how = dict(split=['train','train','test','test'], context=100, horizon=20, rivals=('mean',))
    html = forecast_report(store, model, tmp_path/'out', **how).read_text(encoding='utf-8')
    assert f'0{escape(hurts)}' in html and '<script' not in html and hurts not in html

def test_a_network_is_a_word_on_the_page_of_networks(tmp_path):
    "The name of a scheme of one's own, and those of its networks"
    from brainlm.networks import networks_report
    t = load_parcellation('aal2').table[:24]
    own = t.assign(**{hurts: [f'{"ab"[i//2%2]}{hurts}' for i in range(len(t))]})
    store,model = four_people(tmp_path/'s', Parcellation('own', own), 60)
    html = networks_report(store, model, tmp_path/'out', hurts, n_permutations=1).read_text(encoding='utf-8')
    assert escape(hurts) in html and '<script' not in html and hurts not in html
    assert hurts in pd.read_csv(tmp_path/'out/results.csv').atlas[0]
