"""Profiles: the folders of IPython in which ipyparallel keeps how a cluster is started and joined.

Their configuration is Python, which ipyparallel runs: it is the user's own.
"""

from pathlib import Path

from nbfinetune.cluster.hosts import ClusterError

LOCAL = "nbfinetune"  # the profile whose folder has the files of local clusters


def security_folder(profile: str) -> Path:
    """The folder of a profile that has the files of its clusters; made for local ones.

    Raises
    ------
    ClusterError
        If there is no such profile.
    """
    from IPython.core.profiledir import ProfileDir, ProfileDirError
    from IPython.paths import get_ipython_dir

    home = get_ipython_dir()
    try:
        found = ProfileDir.find_profile_dir_by_name(home, profile)
    except ProfileDirError:
        if profile != LOCAL:
            raise ClusterError(
                f"there is no profile {profile!r} in {home}; "
                f"type: ipython profile create --parallel --profile={profile}"
            ) from None
        found = ProfileDir.create_profile_dir_by_name(home, profile)
    return Path(found.security_dir)


def check_starts(profile: str) -> None:
    """Refuse to start a cluster of a profile that does not say how.

    Raises
    ------
    ClusterError
        If it has no configuration of a cluster.
    """
    if not (security_folder(profile).parent / "ipcluster_config.py").exists():
        raise ClusterError(
            f"no cluster of profile {profile} runs, and it has no ipcluster_config.py that says "
            f"how to start one; type in a terminal: ipcluster start --profile={profile} -n 2"
        )
