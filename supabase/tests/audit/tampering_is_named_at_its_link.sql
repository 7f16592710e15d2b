begin;
\ir ../helpers.psql
select plan(18);

create function tests.broken(account_id uuid)
returns text
language sql
as $$
  select concat_ws(' ', answer -> 'broken' ->> 'link_no', answer -> 'broken' ->> 'problem',
    case when (answer ->> 'intact')::boolean then 'intact' end)
  from private.verify_audit(broken.account_id, 1, null) as answer
$$;

select tests.account() as alice \gset
select tests.trader(:'alice') as trader \gset
select is(tests.broken(:'alice'), 'intact', 'a chain without a link is intact');
select count(tests.ingest(:'alice', tests.signals(:'trader', 3, number * 3 + 1))) as batches
from generate_series(0, 5) as number \gset
select is(tests.broken(:'alice'), 'intact', 'and so is one of six batches');

-- What is found after the changes, which are taken back. Whoever owns the tables can switch the
-- triggers off: that is what the chain is for.
create function tests.found_after(account_id uuid, changes text)
returns text
language plpgsql
as $$
begin
  alter table audit.links disable trigger user;
  execute found_after.changes;
  raise exception using errcode = 'ZZ000', message = tests.broken(found_after.account_id);
exception
  when sqlstate 'ZZ000' then return sqlerrm;
end
$$;

create temporary table mine as
select account_no from private.accounts where account_id = :'alice';

select is(tests.found_after(:'alice', changes), found, why)
from (
  values
  ('update private.signals set price = price + 1
    where account_no = (table mine) and seq = 8', '3 content_changed', 'a changed price'),
  ($$update private.signals set symbol = 'ETH/USD'
    where account_no = (table mine) and seq = 1$$, '1 content_changed', 'a changed symbol'),
  ($$update private.signals set metadata = '{"a": 1}'
    where account_no = (table mine) and seq = 18$$, '6 content_changed', 'added metadata'),
  ('update private.traders set trader_id = gen_random_uuid()
    where account_no = (table mine)', '1 content_changed', 'a trader with another id'),
  ('delete from private.signals where account_no = (table mine) and seq = 11',
    '4 content_changed', 'a deleted signal'),
  ('update private.signals set seq = case seq when 4 then 5 else 4 end
    where account_no = (table mine) and seq in (4, 5)', '2 content_changed',
    'two signals in another order'),
  ('delete from audit.links where account_no = (table mine) and link_no = 3', '3 link_missing',
    'a removed link'),
  ('delete from audit.links where account_no = (table mine) and link_no = 3;
    delete from private.signals where account_no = (table mine) and seq in (7, 8, 9);',
    '3 link_missing', 'a removed batch'),
  ('delete from audit.links where account_no = (table mine) and link_no = 3;
    update audit.links set link_no = 3 where account_no = (table mine) and link_no = 4;
    update audit.links set link_no = 4 where account_no = (table mine) and link_no = 5;
    update audit.links set link_no = 5 where account_no = (table mine) and link_no = 6;
    update private.accounts set last_link_no = 5 where account_no = (table mine)',
    '3 order_changed', 'a removed link with the others moved up'),
  ('update audit.links set link_no = 99 where account_no = (table mine) and link_no = 3;
    update audit.links set link_no = 3 where account_no = (table mine) and link_no = 4;
    update audit.links set link_no = 4 where account_no = (table mine) and link_no = 99',
    '3 order_changed',
    'two links in another order'),
  ($$update audit.links set received_at = received_at + interval '1 second'
    where account_no = (table mine) and link_no = 5$$, '5 link_altered', 'a changed time'),
  ('update audit.links set digest = sha256(digest)
    where account_no = (table mine) and link_no = 2', '2 link_altered', 'a changed digest'),
  ('delete from audit.links where account_no = (table mine) and link_no = 6', '6 link_missing',
    'a link cut off the end'),
  ('update private.accounts as account
    set last_link_no = 5, chain_hash = link.hash, last_seq = 15
    from audit.links as link
    where link.account_no = (table mine) and link.link_no = 5
      and account.account_no = link.account_no', '6 head_mismatch', 'a head rolled back'),
  ('update private.accounts set chain_hash = sha256(chain_hash)
    where account_no = (table mine)', '6 head_mismatch', 'a changed head'),
  ($$insert into private.signals select generated_at - interval '1 hour', 19, confidence, price,
    stop_loss, take_profit, valid_until, account_no, trader_no, timeframe, action, symbol, metadata
    from private.signals where account_no = (table mine) and seq = 18$$, '7 link_missing',
    'a signal put in without a link')
) as planted (changes, found, why);

select * from finish();
rollback;
