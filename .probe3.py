import sys; sys.path.insert(0,'/work/main/tests/server/many')
import csv, time, json, yaml
from pathlib import Path
import numpy as np
from many_support import cohorts, content
out=Path('/tmp/many_e2e'); out.mkdir(exist_ok=True)
def table(path, parts):
    names=list(parts[0].columns)
    with path.open('w',newline='') as f:
        w=csv.writer(f); w.writerow(['patient','centre','time','event','split',*names])
        for c in parts:
            for i in range(c.patients):
                vals=[c.columns[n][i] for n in names]
                w.writerow([f'{c.site}-{i}',c.site,c.time[i],int(c.event[i]),c.split[i],*['' if np.isnan(v) else repr(float(v)) for v in vals]])
table(out/'c.csv', cohorts())
(out/'study.yaml').write_text(yaml.safe_dump(json.loads(json.dumps(content()))))
(out/'site.yaml').write_text(yaml.safe_dump({'ctfed_site':1,'partition':{'by':'centre','prefix':'centre','minimum':10},'data':{'csv':'c.csv'},'columns':{'id':'patient','time':'time','event':'event'},'time_unit':'months','secret':'site.secret'}))
from server.simulate import simulate
t=time.time()
import shutil; shutil.rmtree(out/'out',ignore_errors=True)
simulate(out/'study.yaml',[out/'site.yaml'],out/'out',masked=(False if 'u' in sys.argv else None))
print(time.time()-t)
