"""Django's ORM with psycopg 3: what it sees is the same whatever it is connected to."""

import datetime
import decimal
import os
import sys
import types

import django
from django.conf import settings
from django.core.management import call_command
from django.db import DataError, IntegrityError, OperationalError, connection, connections, models, transaction
from django.utils import timezone

from features import feature, run, say

options = {"sslmode": os.environ["PGSSLMODE"], "sslrootcert": os.environ["PGSSLROOTCERT"]}
database = {
    "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
    "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
    "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True,
}
settings.configure(
    USE_TZ=True, TIME_ZONE="Europe/Rome", DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"], SECRET_KEY="no secret",
    DATABASES={
        "default": database | {"OPTIONS": options},
        # As Django's manual advises behind a pooler in transaction mode.
        "pooler": database | {"OPTIONS": options, "DISABLE_SERVER_SIDE_CURSORS": True, "TIME_ZONE": "Asia/Tokyo"},
        "binding": database | {"OPTIONS": options | {"server_side_binding": True}},
        "strict": database | {"OPTIONS": options | {"isolation_level": 4, "assume_role": "other"}},
        "pool": database | {"CONN_MAX_AGE": 0, "OPTIONS": options | {"pool": {"min_size": 1, "max_size": 2}}},
    },
)
django.setup()

from django.contrib.auth.models import Group, Permission, User  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402


class Note(models.Model):
    class Meta:
        app_label = "notes"

    user = models.ForeignKey(User, models.CASCADE, related_name="notes")
    text = models.TextField(unique=True)
    at = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    price = models.DecimalField(max_digits=10, decimal_places=4, null=True)
    facts = models.JSONField(default=dict)
    tags = ArrayField(models.TextField(), default=list)
    picture = models.BinaryField(null=True)


@feature
def migrations():
    call_command("migrate", verbosity=0)
    say(connection.introspection.table_names())
    say(Permission.objects.count(), Group.objects.count())
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    with connection.schema_editor() as editor:
        field = models.IntegerField(default=7)
        field.set_attributes_from_name("size")
        editor.add_field(Note, field)
        editor.remove_field(Note, field)
    with connection.cursor() as cursor:
        say([column.name for column in connection.introspection.get_table_description(cursor, "notes_note")])
    out = types.SimpleNamespace(write=lambda text: say(text.rstrip()))
    call_command("showmigrations", "auth", stdout=out, no_color=True)


@feature
def queries():
    users = [User.objects.create_user(f"user{n}", f"u{n}@example.org", "secret") for n in range(5)]
    say([user.pk for user in users], users[1].check_password("secret"))
    Note.objects.bulk_create([
        Note(user=users[n % 5], text=f"note {n} ü", at=datetime.datetime(2024, 2, 29, n % 24, tzinfo=datetime.timezone.utc),
             day=datetime.date(2024, 2, 29), price=decimal.Decimal(n) / 4, facts={"n": [n, None]}, tags=["a", str(n)],
             picture=bytes([n % 256]))
        for n in range(500)
    ], batch_size=100)
    note = Note.objects.select_related("user").get(text="note 7 ü")
    say(note.pk, note.user.username, note.at, note.day, note.price, note.facts, note.tags, bytes(note.picture))
    say([(user.username, len(user.notes.all())) for user in User.objects.prefetch_related("notes").order_by("pk")])
    say(Note.objects.filter(facts__n__0=3).values_list("text", "tags__0").get(), Note.objects.filter(tags__contains=["9"]).count())
    say(Note.objects.aggregate(models.Sum("price"), models.Max("at")), Note.objects.filter(at__hour=23).count())
    say(list(Note.objects.annotate(hour=models.functions.TruncDay("at")).values_list("hour").distinct()))
    say(Note.objects.filter(pk=note.pk).update(price=models.F("price") + 1), Note.objects.get(pk=note.pk).price)
    say(Note.objects.update_or_create(text="upserted", defaults={"user": users[0]})[1],
        Note.objects.get_or_create(text="upserted", defaults={"user": users[1]})[1])
    Note.objects.bulk_create([Note(user=users[0], text="upserted", price=5)], update_conflicts=True,
                             unique_fields=["text"], update_fields=["price"])
    say(Note.objects.get(text="upserted").price, Note.objects.exists(), Note.objects.order_by("-pk").first().text)
    say(Note.objects.filter(user=users[4]).delete(), Note.objects.raw("SELECT * FROM notes_note WHERE id = %s", [note.pk])[0].text)
    say(Note.objects.filter(text__iregex="NOTE 1. ").count(), Note.objects.using("binding").filter(price__gt=3, text__contains="1").count())


@feature
def server_side_cursors():
    for alias in ("default", "pooler", "binding"):
        rows = Note.objects.using(alias).order_by("pk").values_list("text", flat=True).iterator(chunk_size=50)
        say(alias, next(rows), next(rows), Note.objects.using(alias).count(), len(list(rows)))
        with transaction.atomic(using=alias):
            say(sum(1 for _ in Note.objects.using(alias).iterator(chunk_size=30)))


@feature
def transactions():
    user = User.objects.first()
    with transaction.atomic():
        user.first_name = "changed"
        user.save(update_fields=["first_name"])
        try:
            with transaction.atomic():
                User.objects.create(username="user1")
        except IntegrityError as error:
            say(error.__cause__.sqlstate, error.__cause__.diag.constraint_name)
        say(User.objects.select_for_update().get(pk=user.pk).first_name)
    try:
        with transaction.atomic():
            User.objects.all().update(first_name="undone")
            raise ValueError("undo")
    except ValueError as error:
        say(error, User.objects.filter(first_name="undone").count())
    called = []
    with transaction.atomic(durable=True):
        transaction.on_commit(lambda: called.append(User.objects.count()))
    say(called)
    try:
        Note.objects.create(user=user, text="too much", price=decimal.Decimal("12345678901"))
    except (DataError, decimal.InvalidOperation) as error:
        say(type(error).__name__)
    transaction.set_autocommit(False)
    Note.objects.create(user=user, text="rolled back")
    transaction.rollback()
    transaction.set_autocommit(True)
    say(Note.objects.filter(text="rolled back").exists())
    with transaction.atomic():
        say(list(Note.objects.select_for_update(skip_locked=True).filter(pk__lt=4).values_list("pk", flat=True)))


@feature
def settings_of_connections():
    show = "SELECT current_setting('TimeZone'), current_setting('transaction_isolation'), current_user, current_setting('client_encoding')"
    for alias in ("default", "pooler", "strict", "pool"):
        for _ in range(3):
            with connections[alias].cursor() as cursor:
                cursor.execute(show)
                say(alias, cursor.fetchone())
    with timezone.override("America/Lima"):
        say(Note.objects.annotate(hour=models.functions.ExtractHour("at")).values_list("hour", flat=True).first())
    try:
        User.objects.using("strict").count()
    except Exception as error:
        say(type(error).__name__, error.__cause__.sqlstate)


@feature
def connections_kept():
    for alias in ("default", "pool"):
        for _ in range(4):
            # What Django does around each request.
            connections[alias].close_if_unusable_or_obsolete()
            say(User.objects.using(alias).count(), connections[alias].is_usable())
    connection.close()
    say(User.objects.count())
    connections["pool"].close()
    connections["pool"].close_pool()


@feature
def sessions():
    store = SessionStore()
    store["key"] = {"value": [1, None]}
    store.save()
    say(SessionStore(session_key=store.session_key)["key"], SessionStore(session_key=store.session_key).exists(store.session_key))
    store.flush()
    say(store.session_key)


@feature
def timeouts():
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 50")
        try:
            cursor.execute("SELECT pg_sleep(10)")
        except OperationalError as error:
            say(error.__cause__.sqlstate)
        cursor.execute("RESET statement_timeout")
        cursor.execute("SELECT 1")
        say(cursor.fetchone())


@feature
def definitions():
    with connection.schema_editor() as editor:
        editor.delete_model(Note)
    call_command("flush", interactive=False, verbosity=0)
    say(User.objects.count())
    call_command("migrate", "auth", "zero", verbosity=0)
    say(connection.introspection.table_names())


if __name__ == "__main__":
    run()
