-- Latencies of each point, over the measured requests and tokens of its valid runs. In a results folder:
--     bench export DIR --parquet && cd DIR && duckdb -c ".read latency.sql"
with valid as (
    select distinct name, point, repeat from 'requests.parquet' where run_status = 'valid'
),
requests as (
    select name, point, count(*) as requests, quantile_disc(ttft_s, 0.5) as p50_ttft_s, avg(e2e_s) as avg_e2e_s
    from 'requests.parquet' where phase = 'measure' and run_status = 'valid'
    group by name, point
),
tokens as (
    select name, point, avg(itl_s) as avg_itl_s, quantile_disc(itl_s, 0.99) as p99_itl_s
    from 'tokens.parquet' join valid using (name, point, repeat)
    where phase = 'measure' and itl_s is not null
    group by name, point
)
select * from requests left join tokens using (name, point) order by name, point;
