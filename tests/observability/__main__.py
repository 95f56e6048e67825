"""`make observability`: write the dashboard and the rules anew."""

from observability.write import write

if __name__ == "__main__":
    write()
