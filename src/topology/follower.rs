//! The newest view for one thread that looks often.

use std::cell::RefCell;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::view::View;

/// As [`Topology::view`](super::Topology::view), without any write to memory that other threads use.
pub struct Follower(RefCell<Followed>);

struct Followed {
    newest: Cache<Arc<ArcSwap<View>>, Arc<View>>,
    here: Rc<ViewHere>,
}

/// A view whose users are counted by one thread alone.
#[derive(Debug)]
pub struct ViewHere(Arc<View>);

impl Deref for ViewHere {
    type Target = View;

    fn deref(&self) -> &View {
        &self.0
    }
}

impl Follower {
    pub(super) fn new(views: Arc<ArcSwap<View>>) -> Self {
        let mut newest = Cache::new(views);
        let here = Rc::new(ViewHere(Arc::clone(newest.load())));
        Self(RefCell::new(Followed { newest, here }))
    }

    pub fn view(&self) -> Rc<ViewHere> {
        let mut followed = self.0.borrow_mut();
        let Followed { newest, here } = &mut *followed;
        let newest = newest.load();
        if !Arc::ptr_eq(newest, &here.0) {
            *here = Rc::new(ViewHere(Arc::clone(newest)));
        }
        Rc::clone(here)
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
