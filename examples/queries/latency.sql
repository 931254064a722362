-- Latencies of each valid run, over its measured requests and tokens. In a results folder:
--     bench export DIR --parquet && cd DIR && duckdb -c ".read latency.sql"
-- A point's percentiles pool the samples of its runs, and its means come from the means of its runs (docs/metrics.md).
with valid as (
    select distinct name, point, repeat from 'requests.parquet' where run_status = 'valid'
),
requests as (
    select name, point, repeat, count(*) as requests, quantile_disc(ttft_s, 0.5) as p50_ttft_s, avg(e2e_s) as avg_e2e_s
    from 'requests.parquet' where phase = 'measure' and run_status = 'valid'
    group by name, point, repeat
),
tokens as (
    select name, point, repeat, avg(itl_s) as avg_itl_s, quantile_disc(itl_s, 0.99) as p99_itl_s
    from 'tokens.parquet' join valid using (name, point, repeat)
    where phase = 'measure' and itl_s is not null
    group by name, point, repeat
)
select * from requests left join tokens using (name, point, repeat) order by name, point, repeat;
