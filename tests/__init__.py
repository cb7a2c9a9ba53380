"""A package, so that what ``bench`` and the tests import is this one: torch-fidelity installs a
package of the same name, which would come before a folder without this file."""
