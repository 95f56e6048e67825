"""`make chart`: write the Helm chart anew."""

from chart.generate import CHART, write

if __name__ == "__main__":
    write(CHART)
