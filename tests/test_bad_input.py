"Every kind of bad input in bad_input.py has one clear answer, and nothing that is stored is lost by it"
import hashlib
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import bad_input
import numpy as np
import pandas as pd
import pytest

unclear = re.compile(r'not foreseen|Traceback|<class|object at 0x|fastai|size mismatch for|DataFrame|errno|Errno'
                     r'|codec can|\bKeyError')
found = re.compile(r'\b(found|is|are|has|have|holds|says|begins|packs|keeps|names|asked|stands|speaks|lacks?|no|not|none|'
                   r'invalid|duplicate|empty|clip=|required)\b')
expected = re.compile(r'\b(expected|must|at most|at least|choose from|needs?|read to|reads up to)\b')
remedy = re.compile(r'--help|is it the right|is there|it goes on|'
                    r'\b(give|take|use|choose|add|install|mend|remove|get|save|put|run|rename|convert|transpose|leave|pass|'
                    r'call|wait|make|see|try|free|find|say|mark|keep|open|begin|edit|name|write|load|train|set|copy|look|'
                    r'lower|ask|fit|fetch|normalise|export|download|draw|split|pack|cut|set|check|report)\b', re.I)
said = {} # Name: what was answered

def check_words(name, words):
    "Says what was found, and what was expected or what to do"
    said[name] = words
    assert found.search(words), f'says not what was found: {words}'
    assert expected.search(words) or remedy.search(words), f'says neither what was expected nor what to do: {words}'
known = ValueError, TypeError, OSError, KeyError, IndexError, ImportError

@pytest.fixture(scope='module')
def world(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return bad_input.World(tmp_path_factory.mktemp('world'))

def stored(w): # what must still be there
    files = [f for n in ('s','m') for f in sorted((w.at/n).rglob('*')) if f.is_file()]
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

@pytest.fixture(scope='module', autouse=True)
def nothing_is_lost(world):
    before = stored(world)
    yield
    after = stored(world)
    assert {k: after.get(k) for k in before}==before

@pytest.mark.parametrize('name', bad_input.calls)
def test_a_call(world, name):
    says,call = bad_input.calls[name]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with pytest.raises(known) as e: call(world)
    words = str(e.value)
    assert re.search(says, words), words
    assert '\n' not in words and len(words)<900 and not unclear.search(words), words
    check_words(name, words)

@pytest.fixture(scope='module')
def registered():
    "The analyses, found once"
    from brainlm.cli import _registered
    return _registered()

@pytest.fixture
def shell(world, registered, monkeypatch):
    import brainlm.cli as cli
    monkeypatch.setattr(cli, '_registered', lambda: registered)
    monkeypatch.chdir(world.at)
    return cli.main

@pytest.mark.parametrize('name', bad_input.commands)
def test_a_command(shell, capsys, name):
    words,says,code = bad_input.commands[name]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: got = shell(shlex.split(words))
        except SystemExit as e: got = e.code
    err = capsys.readouterr().err
    last = err.rstrip().splitlines()[-1] if err.strip() else ''
    assert got==code and re.search(says, err if code==2 else last) and not unclear.search(err), (got, err[-600:])
    assert code==2 or last.startswith('brainlm: ') and '\n' not in last and len(last)<900, err
    check_words(name, last)

def test_how_many_say_all():
    "Name, what was found, what was expected and what to do, each in words of its own; the rest lets one say the other"
    if len(said)<len(bad_input.calls)+len(bad_input.commands): pytest.skip('only where all were walked')
    both = [k for k,w in said.items() if expected.search(w) and remedy.search(w)]
    assert len(both)==len(said)

def test_ctrl_c_while_the_package_is_loaded(world):
    "To the whole group, as a terminal sends it: one line, and 130 (or an end by the signal, which a shell calls 130)"
    def heard(): signal.signal(signal.SIGINT, signal.default_int_handler)
    words = [sys.executable, '-m', 'brainlm.cli', 'check', str(world.at/'s')]
    p = subprocess.Popen(words, stdout=-3, stderr=-1, text=True, start_new_session=True, preexec_fn=heard)
    while 'numpy' not in Path(f'/proc/{p.pid}/maps').read_text() and p.poll() is None: time.sleep(.01)
    os.killpg(p.pid, signal.SIGINT)
    said = p.communicate(timeout=60)[1].split('\n')
    assert p.returncode in (130, -signal.SIGINT) and len(said)==3 and said[1].startswith('brainlm: interrupted'), said

def test_how_many():
    import hostile
    assert len(bad_input.calls)+len(bad_input.commands)+len(hostile.corpus)>=150

@pytest.fixture(scope='module')
def spoilt(world):
    "A store of twelve people, one of whom has a damaged chunk"
    store = world.at/'spoilt'
    rng = np.random.default_rng(3)
    signals = (1000+rng.standard_normal((12, 60, 94))).astype('float32')
    recs = [replace(r, signal=x) for r,x in zip(world.recs, signals)]
    s = bad_input.RecordingStore.create(store, world.p, chunk_rows=60)
    s.extend(recs)
    f = store/'bold'/'c.3.0'
    data = bytearray(f.read_bytes())
    data[77] ^= 1
    f.write_bytes(data)

@pytest.mark.parametrize('words', [
    'qc spoilt --out spoilt.html', 'embed spoilt spoilt.parquet --model m',
    'finetune spoilt --model m --target age --out spoilt_ft --folds 2 --epochs 1 --batch-size 2'])
def test_a_damaged_chunk_stops_one_recording(spoilt, shell, capsys, world, words):
    "Named on the page or in the table of failures, and in the last line; the other eleven are done"
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        assert shell(shlex.split(words))==1
    said = capsys.readouterr()
    assert '1 of 12 recordings is damaged and left out: sub-s3' in said.err.splitlines()[-1]
    made = dict(qc='spoilt.html', embed='spoilt.failures.tsv', finetune='spoilt_ft/report.html')[words.split()[0]]
    page = (world.at/made).read_text()
    assert 's3' in page and 'bold/c.3.0 holds other bytes than were written' in page
    if words.startswith('embed'): assert len(pd.read_parquet(world.at/'spoilt.parquet'))==11

@pytest.mark.parametrize('words,file,most', [
    ('preprocess in full --parcellation aal2 --tr 2', 'full', 5000),
    ('embed s full/e.parquet --model m', 'full/e.parquet', 1000),
    ('pretrain s --out full --preset tiny --epochs 1 --batch-size 6', 'full/recipe.json', 0),
    ('pretrain s --out full --preset tiny --epochs 1 --batch-size 6', 'full/best/model.safetensors', 20_000),
    ('forecast s --out full --model m --context 20', 'full/model/1/model.safetensors', 5000)])
def test_a_full_disk(shell, capsys, world, monkeypatch, tmp_path, words, file, most):
    "A limit of the kernel on the size of files stands for it: one line, nothing half left, and the command as told goes on"
    for n in 'sm': (tmp_path/n).symlink_to(world.at/n)
    (tmp_path/'in').symlink_to(world.at/'in')
    monkeypatch.chdir(tmp_path)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, was[1]))
    try: code = shell(words.split())
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, was)
    last = capsys.readouterr().err.splitlines()[-1]
    more = ['--resume'] if words.split()[0] in ('pretrain', 'forecast') else []
    again = 'the same command with --resume goes on' if more else 'the same command goes on'
    assert code==1 and last==f'brainlm: {file}: the disk is full. What is stored already is safe: make room, and {again}'
    assert not [f for f in tmp_path.rglob('*') if f.suffix=='.part' or re.fullmatch(r'\..+-\w{8}', f.name)]
    assert words[:8]=='forecast' or shell([*words.split(), *more])==0 # a forecast would begin anew
