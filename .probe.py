import sys; sys.path.insert(0,'/work/main/tests/server/many')
import time, pickle, json
from many_support import study, cohorts
from ctfed.federation import run_pooled
from server.many.algorithm import many_algorithm
from server.many.results import many_results_of
from server.many.tables import table_files
from server.results import RunFacts
from ctfed.report.reader import Reader,to_plain
r=run_pooled(many_algorithm(study()), cohorts())
m=many_results_of(r, RunFacts('in-process',('a','b','c','d'),(),1.0,'2026-01-01',()))
plain,bad=to_plain(m); print(bad)
json.dump(plain,open('.probe.json','w'))
f=table_files(Reader(plain))
for k,v in f.items(): print(k,len(v.splitlines())); print("\n".join(v.splitlines()[:3])[:700])
